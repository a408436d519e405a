package dev.segformeredge.demo.core

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * The network's output, logits or a label map, as a label map of the picture's size. Keeps its buffers from picture to
 * picture; not thread-safe.
 */
class LabelDecoder(
    private val metadata: Metadata,
) {
    private val spec = metadata.output
    private val logits = FloatArray(if (metadata.givesLabels) 0 else spec.elements)
    private val labels = ByteArray(if (metadata.givesLabels) spec.elements else 0)
    private var upsampler: LabelUpsampler? = null
    private var mapUpsampler: LabelMapUpsampler? = null

    /** The raw [output], in the processor's order of bytes, as labels of [width] x [height], in [out] if it fits. */
    fun decode(
        output: ByteBuffer,
        width: Int,
        height: Int,
        out: LabelMap? = null,
    ): LabelMap {
        val source = output.duplicate().order(ByteOrder.nativeOrder())
        if (source.remaining() != spec.elements * spec.dtype.bytes) {
            throw ModelException(
                "The network gave ${source.remaining()} bytes; its metadata says ${spec.elements} of ${spec.dtype.text}.",
            )
        }
        val map = out?.takeIf { it.width == width && it.height == height } ?: LabelMap(width, height)
        if (metadata.givesLabels) {
            readLabels(source)
            mapUpsamplerFor(width, height).upsample(labels, map)
        } else {
            readLogits(source)
            upsamplerFor(width, height).upsample(logits, map)
        }
        return map
    }

    /** Height and width of a label map, whose shape may have ones for the image and the channel. */
    private fun labelShape(sides: List<Int>): Pair<Int, Int> {
        if (sides.size == 2) return Pair(sides[0], sides[1])
        val shape = spec.shape
        return when {
            shape.size == 2 -> Pair(shape[0], shape[1])
            shape.size == 3 -> Pair(shape[1], shape[2])
            spec.layout == Layout.NCHW -> Pair(shape[2], shape[3])
            else -> Pair(shape[1], shape[2])
        }
    }

    private fun upsamplerFor(
        width: Int,
        height: Int,
    ): LabelUpsampler {
        upsampler?.takeIf { it.width == width && it.height == height }?.let { return it }
        val (h, w) =
            if (spec.layout ==
                Layout.NCHW
            ) {
                Pair(spec.shape[2], spec.shape[3])
            } else {
                Pair(spec.shape[1], spec.shape[2])
            }
        val exact = spec.dtype != DType.FLOAT32
        return LabelUpsampler(metadata.classNames.size, h, w, spec.layout, exact, width, height).also { upsampler = it }
    }

    private fun mapUpsamplerFor(
        width: Int,
        height: Int,
    ): LabelMapUpsampler {
        mapUpsampler?.takeIf { it.outWidth == width && it.outHeight == height }?.let { return it }
        val (h, w) = labelShape(spec.shape.filter { it != 1 })
        return LabelMapUpsampler(h, w, width, height).also { mapUpsampler = it }
    }

    private fun readLogits(source: ByteBuffer) {
        when (spec.dtype) {
            DType.FLOAT32 -> {
                source.asFloatBuffer().get(logits)
            }

            DType.INT16 -> {
                source.asShortBuffer().let { shorts ->
                    for (i in logits.indices) {
                        logits[i] =
                            shorts[i].toFloat()
                    }
                }
            }

            DType.UINT8 -> {
                for (i in logits.indices) logits[i] = (source[i].toInt() and 0xff).toFloat()
            }

            else -> {
                for (i in logits.indices) logits[i] = source[i].toFloat()
            }
        }
    }

    private fun readLabels(source: ByteBuffer) {
        val classes = metadata.classNames.size
        for (i in labels.indices) {
            val label =
                when (spec.dtype) {
                    DType.INT64 -> source.getLong(8 * i)
                    DType.INT32 -> source.getInt(4 * i).toLong()
                    DType.INT16 -> source.getShort(2 * i).toLong()
                    DType.UINT8 -> source[i].toLong() and 0xff
                    else -> source[i].toLong()
                }
            if (label < 0 ||
                label >= classes
            ) {
                throw ModelException("The network gave label $label of $classes classes.")
            }
            labels[i] = label.toByte()
        }
    }
}
