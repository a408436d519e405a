package dev.segformeredge.demo.core

import java.nio.ByteBuffer

/** One plane of a camera's frame: samples lie [pixelStride] bytes apart in rows that lie [rowStride] bytes apart. */
class YuvPlane(
    val buffer: ByteBuffer,
    val rowStride: Int,
    val pixelStride: Int,
)

/** A frame in YUV_420_888: a full plane of luminance and two of chrominance at half the size, rounded up. */
class YuvFrame(
    val width: Int,
    val height: Int,
    val y: YuvPlane,
    val u: YuvPlane,
    val v: YuvPlane,
)

/**
 * Turns frames upright and into RGB.
 *
 * Android's cameras give BT.601 over the full range, as JPEG does. The constants are OpenCV's (COLOR_YCrCb2RGB), so the
 * result is that of OpenCV, bit for bit. Chrominance is repeated, not interpolated. Keeps one row of each plane; not
 * thread-safe.
 */
class YuvConverter {
    private var luminance = ByteArray(0)
    private var blueness = ByteArray(0)
    private var redness = ByteArray(0)

    /** [frame] as an upright picture, in the memory of [out] where that has the right size. */
    fun toRgb(
        frame: YuvFrame,
        orientation: Orientation,
        out: RgbImage? = null,
    ): RgbImage {
        val width = orientation.uprightWidth(frame.width, frame.height)
        val height = orientation.uprightHeight(frame.width, frame.height)
        val image = out?.takeIf { it.width == width && it.height == height } ?: RgbImage(width, height)
        val target = Target.of(orientation, width, height)
        val chromaWidth = (frame.width + 1) / 2
        luminance = fitted(luminance, frame.y, frame.width)
        blueness = fitted(blueness, frame.u, chromaWidth)
        redness = fitted(redness, frame.v, chromaWidth)
        for (row in 0 until frame.height) {
            readRow(frame.y, row, frame.width, luminance)
            if (row % 2 == 0) {
                readRow(frame.u, row / 2, chromaWidth, blueness)
                readRow(frame.v, row / 2, chromaWidth, redness)
            }
            convertRow(frame, image.data, 3 * (target.start + row * target.down), 3 * target.right)
        }
        return image
    }

    private fun convertRow(
        frame: YuvFrame,
        out: ByteArray,
        start: Int,
        step: Int,
    ) {
        var at = start
        for (x in 0 until frame.width) {
            val y = luminance[x * frame.y.pixelStride].toInt() and 0xff
            val u = (blueness[x / 2 * frame.u.pixelStride].toInt() and 0xff) - 128
            val v = (redness[x / 2 * frame.v.pixelStride].toInt() and 0xff) - 128
            out[at] = clamp(y + ((V_TO_RED * v + HALF) shr SHIFT))
            out[at + 1] = clamp(y + ((U_TO_GREEN * u + V_TO_GREEN * v + HALF) shr SHIFT))
            out[at + 2] = clamp(y + ((U_TO_BLUE * u + HALF) shr SHIFT))
            at += step
        }
    }

    /** Where the sensor's first pixel goes, and how far the next one to its [right] and the one [down] of it are. */
    private class Target(
        val start: Int,
        val right: Int,
        val down: Int,
    ) {
        companion object {
            fun of(
                orientation: Orientation,
                width: Int,
                height: Int,
            ): Target {
                val lastRow = (height - 1) * width
                val turned =
                    when (orientation.quarterTurns) {
                        0 -> Target(0, 1, width)
                        1 -> Target(width - 1, width, -1)
                        2 -> Target(lastRow + width - 1, -1, -width)
                        else -> Target(lastRow, -width, 1)
                    }
                if (!orientation.mirrored) return turned
                val column = turned.start.mod(width)
                val start = turned.start - column + width - 1 - column
                return if (orientation.swapsSides) {
                    Target(start, turned.right, -turned.down)
                } else {
                    Target(start, -turned.right, turned.down)
                }
            }
        }
    }

    private companion object {
        const val SHIFT = 14
        const val HALF = 1 shl (SHIFT - 1)
        const val V_TO_RED = 22987
        const val V_TO_GREEN = -11698
        const val U_TO_GREEN = -5636
        const val U_TO_BLUE = 29049

        fun clamp(value: Int): Byte =
            (
                if (value < 0) {
                    0
                } else if (value > 255) {
                    255
                } else {
                    value
                }
            ).toByte()

        fun fitted(
            row: ByteArray,
            plane: YuvPlane,
            samples: Int,
        ): ByteArray {
            val bytes = (samples - 1) * plane.pixelStride + 1
            return if (row.size >= bytes) row else ByteArray(bytes)
        }

        /** The bytes from a row's first sample to its last: a plane's buffer may end there, before its row does. */
        fun readRow(
            plane: YuvPlane,
            row: Int,
            samples: Int,
            out: ByteArray,
        ) {
            val buffer = plane.buffer.duplicate()
            buffer.position(row * plane.rowStride)
            buffer.get(out, 0, (samples - 1) * plane.pixelStride + 1)
        }
    }
}
