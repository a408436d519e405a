package dev.segformeredge.demo.checks

import dev.segformeredge.demo.core.FrameCopy
import dev.segformeredge.demo.core.InputEncoder
import dev.segformeredge.demo.core.LabelMap
import dev.segformeredge.demo.core.LabelMapUpsampler
import dev.segformeredge.demo.core.LabelUpsampler
import dev.segformeredge.demo.core.Layout
import dev.segformeredge.demo.core.Metadata
import dev.segformeredge.demo.core.Orientation
import dev.segformeredge.demo.core.Palette
import dev.segformeredge.demo.core.Resizer
import dev.segformeredge.demo.core.RgbImage
import dev.segformeredge.demo.core.YuvConverter
import dev.segformeredge.demo.engine.Engine
import dev.segformeredge.demo.engine.Segmenter
import org.junit.Assert.assertEquals
import org.junit.Assert.assertSame
import org.junit.Test
import java.nio.ByteBuffer

/** The app's arithmetic against the Python package's, bit for bit. */
class GoldenTest {
    @Test
    fun resizing() =
        Vectors.forEach("resize", 120) { case ->
            val out = RgbImage(case.int("new_width"), case.int("new_height"))
            val resizer = Resizer(case.int("width"), case.int("height"), out.width, out.height)
            repeat(2) {
                resizer.resize(case.image(), out)
                assertSameBytes(case, case.bytes("expected"), out.data)
            }
        }

    @Test
    fun networkInput() =
        Vectors.forEach("input", 12) { case ->
            val encoder = InputEncoder(Metadata.parse(case.text("metadata"), "case"))
            repeat(2) { assertSameBytes(case, case.bytes("expected"), bytesOf(encoder.encode(case.image()))) }
        }

    @Test
    fun cameraFrames() {
        val converter = YuvConverter()
        val copy = FrameCopy()
        Vectors.forEach("frame", 60) { case ->
            val orientation = Orientation(case.int("turns"), case.flag("mirrored"))
            val image = converter.toRgb(case.frame(), orientation)
            assertSameBytes(case, case.bytes("expected"), image.data)
            assertSame(image, converter.toRgb(case.frame(), orientation, image))
            assertSameBytes(case, case.bytes("expected"), converter.toRgb(copy.of(case.frame()), orientation).data)
        }
    }

    @Test
    fun upsampledLogits() =
        Vectors.forEach("upsample", 240) { case ->
            val bytes = case.buffer("logits")
            val dtype = case.text("dtype")
            val logits =
                FloatArray(case.int("classes") * case.int("height") * case.int("width")) {
                    when (dtype) {
                        "float32" -> bytes.getFloat(4 * it)
                        "int16" -> bytes.getShort(2 * it).toFloat()
                        "uint8" -> (bytes[it].toInt() and 0xff).toFloat()
                        else -> bytes[it].toFloat()
                    }
                }
            val out = LabelMap(case.int("new_width"), case.int("new_height"))
            val layout = if (case.text("layout") == "nchw") Layout.NCHW else Layout.NHWC
            val upsampler =
                LabelUpsampler(
                    case.int("classes"),
                    case.int("height"),
                    case.int("width"),
                    layout,
                    dtype != "float32",
                    out.width,
                    out.height,
                )
            repeat(2) {
                upsampler.upsample(logits, out)
                assertSameBytes(case, case.bytes("expected"), out.data)
            }
        }

    @Test
    fun resizedLabels() =
        Vectors.forEach("labels", 30) { case ->
            val out = LabelMap(case.int("new_width"), case.int("new_height"))
            val upsampler = LabelMapUpsampler(case.int("height"), case.int("width"), out.width, out.height)
            upsampler.upsample(case.bytes("labels"), out)
            assertSameBytes(case, case.bytes("expected"), out.data)
        }

    /** The picture that is shared. */
    @Test
    fun blendedPictures() =
        Vectors.forEach("blend", 6) { case ->
            val image = case.image()
            val labels = LabelMap(image.width, image.height, case.bytes("labels"))
            val pixels = IntArray(image.width * image.height)
            Palette(case.colours("palette")).blend(image, labels, case.int("percent") / 100.0, pixels)
            assertSameBytes(case, case.bytes("expected"), RgbImage.fromArgb(pixels, image.width, image.height).data)
        }

    /** A camera's frame to the tensor, and a network's raw output to labels, through one Segmenter. */
    @Test
    fun wholePictures() =
        Vectors.forEach("pipeline", 30) { case ->
            val metadata = Metadata.parse(case.text("metadata"), "case")
            val engine = ReplayEngine(case.buffer("output"))
            Segmenter(metadata, engine).use { segmenter ->
                val orientation = Orientation(case.int("turns"), case.flag("mirrored"))
                val labels = segmenter.segment(case.frame(), orientation)
                assertSameBytes(case, case.bytes("tensor"), engine.input)
                assertEquals(case.int("width"), labels.width)
                assertEquals(case.int("height"), labels.height)
                assertSameBytes(case, case.bytes("expected"), labels.data)
                assertSame(labels, segmenter.segment(case.frame(), orientation, labels))
            }
            assertEquals(1, engine.closed)
        }

    /** Gives a recorded output and keeps the input. */
    private class ReplayEngine(
        private val output: ByteBuffer,
    ) : Engine {
        var input = ByteArray(0)
        var closed = 0

        override fun run(input: ByteBuffer): ByteBuffer {
            this.input = bytesOf(input)
            return output
        }

        override fun close() {
            closed++
        }
    }
}
