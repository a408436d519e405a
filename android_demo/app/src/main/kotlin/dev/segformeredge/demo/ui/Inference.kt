package dev.segformeredge.demo.ui

import android.graphics.Bitmap
import android.os.Debug
import android.os.Handler
import android.os.HandlerThread
import android.os.Looper
import dev.segformeredge.demo.core.FrameCopy
import dev.segformeredge.demo.core.FrameStats
import dev.segformeredge.demo.core.LabelMap
import dev.segformeredge.demo.core.Metadata
import dev.segformeredge.demo.core.ModelException
import dev.segformeredge.demo.core.ModelFiles
import dev.segformeredge.demo.core.Orientation
import dev.segformeredge.demo.core.Palette
import dev.segformeredge.demo.core.RgbImage
import dev.segformeredge.demo.core.YuvFrame
import dev.segformeredge.demo.engine.ExecuTorchEngine
import dev.segformeredge.demo.engine.Segmenter
import java.util.concurrent.atomic.AtomicBoolean

/** What one picture gave, for the screen. */
class Segmented(
    /** The classes' colours; overwritten two pictures later. */
    val colours: Bitmap,
    /** The photo itself; null for a camera's frame, which the preview shows. */
    val photo: Bitmap?,
    /** Pixels of each class. */
    val counts: IntArray,
    val figures: Figures,
)

/** Of the latest pictures: the median and the 95th percentile; of this one: the network alone. */
data class Figures(
    val medianMs: Double,
    val slowMs: Double,
    val networkMs: Double,
    val memoryMb: Double,
)

/** Told on the main thread, and not after [Inference.close]. */
interface InferenceListener {
    fun onModel(metadata: Metadata)

    fun onSegmented(result: Segmented)

    fun onMessage(message: String)
}

/** Owns the model and the thread on which everything about it happens. At most one picture is under way. */
class Inference(
    private val listener: InferenceListener,
) {
    private val thread = HandlerThread("inference").apply { start() }
    private val handler = Handler(thread.looper)
    private val main = Handler(Looper.getMainLooper())
    private val busy = AtomicBoolean(false)
    private val stats = FrameStats()
    private val frameCopy = FrameCopy()
    private var segmenter: Segmenter? = null
    private var palette = Palette(emptyList())
    private var labels: LabelMap? = null
    private var pixels = IntArray(0)

    /** The main thread shows one while the other is filled. */
    private val bitmaps = arrayOfNulls<Bitmap>(2)
    private var next = 0
    private var memoryMb = 0.0
    private var memoryRead = 0L

    @Volatile private var closed = false

    /** Loads what [find] gives, in place of the model there was. */
    fun load(find: () -> ModelFiles) =
        work {
            drop()
            val files = find()
            val loaded = Segmenter(files.metadata, ExecuTorchEngine.load(files))
            segmenter = loaded
            palette = Palette(loaded.metadata.palette)
            tell { onModel(loaded.metadata) }
        }

    /** Segments a camera's frame unless another picture is under way. The frame may be gone when this returns. */
    fun offer(
        frame: YuvFrame,
        orientation: Orientation,
    ) {
        if (closed || !busy.compareAndSet(false, true)) return
        val copy = frameCopy.of(frame)
        val posted =
            handler.post {
                val shown = attempt { segmentNow(null, { busy.set(false) }) { it.segment(copy, orientation, labels) } }
                if (!shown) busy.set(false)
            }
        if (!posted) busy.set(false)
    }

    /** Segments the photo that [read] gives, after the picture that is under way. */
    fun photo(read: () -> Bitmap) =
        work {
            val photo = read()
            val argb = IntArray(photo.width * photo.height)
            photo.getPixels(argb, 0, photo.width, 0, 0, photo.width, photo.height)
            val image = RgbImage.fromArgb(argb, photo.width, photo.height)
            segmentNow(photo, {}) { it.segment(image, labels) }
        }

    /** Gives the latest picture with its classes over it to [use] on the inference thread; null if there is none. */
    fun blend(
        opacity: Double,
        use: (Bitmap?) -> Unit,
    ) = work {
        val image = segmenter?.picture
        val map = labels
        if (image == null || map == null || map.width != image.width || map.height != image.height) {
            use(null)
        } else {
            val mixed = IntArray(image.width * image.height)
            palette.blend(image, map, opacity, mixed)
            use(Bitmap.createBitmap(mixed, image.width, image.height, Bitmap.Config.ARGB_8888))
        }
    }

    /** Ends after what is under way, without waiting for it. */
    fun close() {
        closed = true
        handler.post { drop() }
        thread.quitSafely()
    }

    /** Calls [onShown] when the result is on the screen, so that the next frame is taken then; at once without one. */
    private fun segmentNow(
        photo: Bitmap?,
        onShown: () -> Unit,
        segment: (Segmenter) -> LabelMap,
    ) {
        val with = segmenter
        if (with == null || closed) return onShown()
        val map = segment(with)
        labels = map
        stats.add(with.times.total)
        val figures =
            Figures(stats.percentile(0.5) ?: 0.0, stats.percentile(0.95) ?: 0.0, with.times.inference, memory())
        val result = Segmented(paint(map), photo, Palette.count(map), figures)
        main.post {
            if (!closed) listener.onSegmented(result)
            onShown()
        }
    }

    private fun paint(map: LabelMap): Bitmap {
        val size = map.width * map.height
        if (pixels.size != size) pixels = IntArray(size)
        palette.colourise(map, pixels)
        next = 1 - next
        val bitmap =
            bitmaps[next]?.takeIf { it.width == map.width && it.height == map.height }
                ?: Bitmap.createBitmap(map.width, map.height, Bitmap.Config.ARGB_8888).also { bitmaps[next] = it }
        bitmap.setPixels(pixels, 0, map.width, 0, 0, map.width, map.height)
        return bitmap
    }

    /** Asked for once a second: the answer takes milliseconds. */
    private fun memory(): Double {
        val now = System.nanoTime()
        if (memoryRead == 0L || now - memoryRead > 1_000_000_000L) {
            memoryMb = Debug.getPss() / 1024.0
            memoryRead = now
        }
        return memoryMb
    }

    private fun drop() {
        segmenter?.close()
        segmenter = null
        labels = null
        stats.clear()
    }

    private fun work(action: () -> Unit) {
        handler.post { attempt(action) }
    }

    /** Whether [action] went well; if not, its message is shown and a model that fails is not tried again. */
    private fun attempt(action: () -> Unit): Boolean {
        try {
            action()
            return true
        } catch (error: ModelException) {
            drop()
            tell { onMessage(error.message.orEmpty()) }
        } catch (error: PictureException) {
            tell { onMessage(error.message.orEmpty()) }
        } catch (error: RuntimeException) {
            drop()
            tell { onMessage("The model or the picture does not fit this app: $error") }
        }
        return false
    }

    private fun tell(what: InferenceListener.() -> Unit) {
        main.post { if (!closed) listener.what() }
    }
}
