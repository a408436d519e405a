package dev.segformeredge.demo.engine

import dev.segformeredge.demo.core.FrameTimes
import dev.segformeredge.demo.core.InputEncoder
import dev.segformeredge.demo.core.LabelDecoder
import dev.segformeredge.demo.core.LabelMap
import dev.segformeredge.demo.core.Metadata
import dev.segformeredge.demo.core.Orientation
import dev.segformeredge.demo.core.RgbImage
import dev.segformeredge.demo.core.YuvConverter
import dev.segformeredge.demo.core.YuvFrame
import java.io.Closeable

/** From a picture to its label map. Keeps its buffers from picture to picture; used by one thread at a time. */
class Segmenter(
    val metadata: Metadata,
    private val engine: Engine,
) : Closeable {
    private val converter = YuvConverter()
    private val encoder = InputEncoder(metadata)
    private val decoder = LabelDecoder(metadata)
    private var upright: RgbImage? = null

    /** The latest picture, upright, as the network saw it before resizing; the next frame overwrites it. */
    var picture: RgbImage? = null
        private set

    /** Of the latest picture. */
    var times = FrameTimes(0.0, 0.0, 0.0)
        private set

    /** The labels of a camera's [frame], turned upright; in the memory of [out] if that has the right size. */
    fun segment(
        frame: YuvFrame,
        orientation: Orientation,
        out: LabelMap? = null,
    ): LabelMap {
        val start = System.nanoTime()
        val image = converter.toRgb(frame, orientation, upright)
        upright = image
        return segment(image, out, start)
    }

    fun segment(
        image: RgbImage,
        out: LabelMap? = null,
    ): LabelMap = segment(image, out, System.nanoTime())

    private fun segment(
        image: RgbImage,
        out: LabelMap?,
        start: Long,
    ): LabelMap {
        val input = encoder.encode(image)
        val prepared = System.nanoTime()
        val output = engine.run(input)
        val inferred = System.nanoTime()
        val labels = decoder.decode(output, image.width, image.height, out)
        picture = image
        times = FrameTimes(ms(start, prepared), ms(prepared, inferred), ms(inferred, System.nanoTime()))
        return labels
    }

    override fun close() = engine.close()

    private fun ms(
        from: Long,
        to: Long,
    ): Double = (to - from) / 1e6
}
