package dev.segformeredge.demo.core

/**
 * Bilinear resizing with half-pixel centres and no antialiasing, bit-equal to OpenCV's INTER_LINEAR on bytes.
 *
 * The arithmetic is OpenCV's: weights of 11 bits, rows first, four bits dropped between the two passes. Made once for
 * two sizes; keeps two rows. Not thread-safe.
 */
class Resizer(
    private val fromWidth: Int,
    private val fromHeight: Int,
    private val width: Int,
    private val height: Int,
) {
    private val columns = axis(fromWidth, width, clampWeights = true)
    private val rows = axis(fromHeight, height, clampWeights = false)
    private var upper = IntArray(3 * width)
    private var lower = IntArray(3 * width)

    fun fits(
        image: RgbImage,
        width: Int,
        height: Int,
    ): Boolean = image.width == fromWidth && image.height == fromHeight && width == this.width && height == this.height

    /** Writes [image] at the new size into [out]. */
    fun resize(
        image: RgbImage,
        out: RgbImage,
    ) {
        require(fits(image, out.width, out.height)) { "a resizer of other sizes" }
        if (fromWidth == width && fromHeight == height) {
            image.data.copyInto(out.data)
            return
        }
        var upperRow = -1
        var lowerRow = -1
        for (y in 0 until height) {
            val top = rows.low[y].coerceIn(0, fromHeight - 1)
            val bottom = (rows.low[y] + 1).coerceIn(0, fromHeight - 1)
            if (top == lowerRow) {
                upper = lower.also { lower = upper }
                upperRow = top.also { lowerRow = upperRow }
            }
            if (top != upperRow) stretchRow(image, top, upper)
            if (bottom != lowerRow) stretchRow(image, bottom, lower)
            upperRow = top
            lowerRow = bottom
            blendRows(rows.lowWeight[y], rows.highWeight[y], out.data, 3 * width * y)
        }
    }

    private fun stretchRow(
        image: RgbImage,
        row: Int,
        out: IntArray,
    ) {
        val data = image.data
        val start = 3 * fromWidth * row
        for (x in 0 until width) {
            val left = start + 3 * columns.low[x]
            val right = start + 3 * minOf(columns.low[x] + 1, fromWidth - 1)
            val leftWeight = columns.lowWeight[x]
            val rightWeight = columns.highWeight[x]
            for (c in 0 until 3) {
                out[3 * x + c] =
                    (data[left + c].toInt() and 0xff) * leftWeight + (data[right + c].toInt() and 0xff) * rightWeight
            }
        }
    }

    private fun blendRows(
        upperWeight: Int,
        lowerWeight: Int,
        out: ByteArray,
        start: Int,
    ) {
        for (i in 0 until 3 * width) {
            val sum = ((upperWeight * (upper[i] shr 4)) shr 16) + ((lowerWeight * (lower[i] shr 4)) shr 16)
            out[start + i] = ((sum + 2) shr 2).toByte()
        }
    }

    private class Axis(
        val low: IntArray,
        val lowWeight: IntArray,
        val highWeight: IntArray,
    )

    private companion object {
        const val ONE = 2048

        /** Beyond the edge OpenCV repeats the last column with the whole weight, but rows with both weights. */
        fun axis(
            from: Int,
            to: Int,
            clampWeights: Boolean,
        ): Axis {
            val axis = Axis(IntArray(to), IntArray(to), IntArray(to))
            val scale = 1.0 / (to.toDouble() / from)
            for (i in 0 until to) {
                val position = ((i + 0.5) * scale - 0.5).toFloat()
                var low = Math.floor(position.toDouble()).toInt()
                var weight = position - low
                if (clampWeights && (low < 0 || low >= from - 1)) {
                    low = low.coerceIn(0, from - 1)
                    weight = 0f
                }
                axis.low[i] = low
                axis.lowWeight[i] = Math.rint(((1f - weight) * ONE).toDouble()).toInt()
                axis.highWeight[i] = Math.rint((weight * ONE).toDouble()).toInt()
            }
            return axis
        }
    }
}
