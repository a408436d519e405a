package dev.segformeredge.demo.core

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * A picture as the network's input: resized, normalised and quantized as the metadata says, in one direct buffer that
 * the next picture overwrites. Not thread-safe.
 *
 * A byte holds 256 values, so normalisation and quantization are one table for each colour.
 */
class InputEncoder(
    private val metadata: Metadata,
) {
    private val spec = metadata.input
    private val resized = RgbImage(metadata.width, metadata.height)
    private var resizer: Resizer? = null
    private val floats = if (spec.dtype == DType.FLOAT32) floatTables() else emptyArray()
    private val bytes = if (spec.dtype == DType.FLOAT32) emptyArray() else byteTables()
    private val byteRow = ByteArray(if (spec.dtype == DType.FLOAT32) 0 else spec.elements)
    private val floatRow = FloatArray(if (spec.dtype == DType.FLOAT32) spec.elements else 0)

    /** In the order of bytes that the phone's processor has. */
    val buffer: ByteBuffer =
        ByteBuffer.allocateDirect(spec.elements * spec.dtype.bytes).order(ByteOrder.nativeOrder())

    /** Fills [buffer] with [image] and returns it, at position 0. */
    fun encode(image: RgbImage): ByteBuffer {
        val data = fitted(image).data
        val pixels = metadata.width * metadata.height
        val (pixelStep, colourStep) = if (spec.layout == Layout.NHWC) Pair(3, 1) else Pair(1, pixels)
        buffer.clear()
        if (spec.dtype == DType.FLOAT32) {
            for (c in 0 until 3) {
                val table = floats[c]
                for (i in 0 until pixels) {
                    floatRow[i * pixelStep + c * colourStep] = table[data[3 * i + c].toInt() and 0xff]
                }
            }
            buffer.asFloatBuffer().put(floatRow)
        } else {
            for (c in 0 until 3) {
                val table = bytes[c]
                for (i in 0 until pixels) {
                    byteRow[i * pixelStep + c * colourStep] = table[data[3 * i + c].toInt() and 0xff]
                }
            }
            buffer.put(byteRow)
            buffer.clear()
        }
        return buffer
    }

    private fun fitted(image: RgbImage): RgbImage {
        if (image.width == resized.width && image.height == resized.height) return image
        val known = resizer?.takeIf { it.fits(image, resized.width, resized.height) }
        val fitting = known ?: Resizer(image.width, image.height, resized.width, resized.height)
        resizer = fitting
        fitting.resize(image, resized)
        return resized
    }

    private fun floatTables(): Array<FloatArray> =
        Array(3) { c -> FloatArray(256) { ((it / 255.0 - metadata.mean[c]) / metadata.std[c]).toFloat() } }

    private fun byteTables(): Array<ByteArray> {
        val scale = (spec.scale ?: throw ModelException("The input has no scale.")).toFloat()
        val zeroPoint = spec.zeroPoint ?: 0
        val limits = if (spec.dtype == DType.INT8) -128..127 else 0..255
        return floatTables()
            .map { table ->
                ByteArray(256) {
                    val step = Math.rint((table[it] / scale).toDouble()) + zeroPoint
                    step.coerceIn(limits.first.toDouble(), limits.last.toDouble()).toInt().toByte()
                }
            }.toTypedArray()
    }
}
