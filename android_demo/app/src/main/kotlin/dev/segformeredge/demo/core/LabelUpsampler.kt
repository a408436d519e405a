package dev.segformeredge.demo.core

/**
 * Logits to a label map of another size: bilinear upsampling with half-pixel centres, then the largest class, the first
 * of equal ones. No upsampled logits are made.
 *
 * Where the four corners of a cell have one best class, the cell is filled with it; only border cells are interpolated.
 * Bit-equal to segformer_edge/data/upsampling.py: quantized logits are taken as integers and the result is exact, float
 * logits are interpolated in float32. Made once for the sizes; not thread-safe.
 */
class LabelUpsampler(
    private val classes: Int,
    private val logitsHeight: Int,
    private val logitsWidth: Int,
    layout: Layout,
    /** Whether the logits are integers of up to 16 bits, which a Float holds exactly. */
    private val exact: Boolean,
    val width: Int,
    val height: Int,
) {
    private val rows = PixelAxis(logitsHeight, height)
    private val columns = PixelAxis(logitsWidth, width)
    private val samples = logitsHeight * logitsWidth
    private val classStep = if (layout == Layout.NCHW) samples else 1
    private val sampleStep = if (layout == Layout.NCHW) 1 else classes
    private val border = BorderCells(classes, rows, columns, logitsWidth, classStep, sampleStep)
    private val best = ByteArray(samples)
    private val highest = FloatArray(samples)
    private val span = columns.low.let { low -> IntArray(width) { low[columns.cell[it]] } }

    /** Writes the labels of [logits] into [out]. Throws [ModelException] where a logit is NaN or infinite. */
    fun upsample(
        logits: FloatArray,
        out: LabelMap,
    ) {
        require(logits.size == classes * samples) { "${logits.size} logits, not ${classes * samples}" }
        require(out.width == width && out.height == height) { "a label map of another size" }
        if (!exact && logits.any { it.isNaN() || it.isInfinite() }) {
            throw ModelException("The network's output contains NaN or infinity.")
        }
        findBest(logits)
        fill(out.data)
        border.forEachGroup(logits, best) { if (exact) drawIntegers(out.data) else drawFloats(out.data) }
    }

    private fun findBest(logits: FloatArray) {
        best.fill(0)
        for (i in 0 until samples) highest[i] = logits[i * sampleStep]
        for (c in 1 until classes) {
            for (i in 0 until samples) {
                val value = logits[c * classStep + i * sampleStep]
                if (value > highest[i]) {
                    highest[i] = value
                    best[i] = c.toByte()
                }
            }
        }
    }

    private fun fill(labels: ByteArray) {
        var filled = -1
        for (y in 0 until height) {
            val cell = rows.cell[y]
            if (cell == filled) {
                labels.copyInto(labels, y * width, (y - 1) * width, y * width)
                continue
            }
            val row = rows.low[cell] * logitsWidth
            for (x in 0 until width) labels[y * width + x] = best[row + span[x]]
            filled = cell
        }
    }

    private inline fun forEachPixel(
        cell: Int,
        draw: (y: Int, x: Int) -> Unit,
    ) {
        val row = border.cellRow[cell]
        val column = border.cellColumn[cell]
        for (y in rows.firstPixel[row] until rows.firstPixel[row + 1]) {
            for (x in columns.firstPixel[column] until columns.firstPixel[column + 1]) draw(y, x)
        }
    }

    private fun drawIntegers(labels: ByteArray) {
        val corners = border.corners
        val heights = rows.denominator.toLong()
        val widths = columns.denominator.toLong()
        for (cell in 0 until border.count) {
            forEachPixel(cell) { y, x ->
                val down = rows.weight[y].toLong()
                val right = columns.weight[x].toLong()
                var highest = Long.MIN_VALUE
                for (pair in border.begin[cell] until border.begin[cell + 1]) {
                    val left = corners[4 * pair].toLong() * (heights - down) + corners[4 * pair + 2].toLong() * down
                    val far = corners[4 * pair + 1].toLong() * (heights - down) + corners[4 * pair + 3].toLong() * down
                    val value = left * (widths - right) + far * right
                    if (value > highest) {
                        highest = value
                        labels[y * width + x] = border.candidate[pair]
                    }
                }
            }
        }
    }

    /** A class is compared as its lead over the cell's first candidate, whose own lead is 0. */
    private fun drawFloats(labels: ByteArray) {
        val corners = border.corners
        var largest = 0f
        for (i in 0 until 4 * border.candidates) largest = maxOf(largest, Math.abs(corners[i]))
        val slack = (ROUNDING * largest).toFloat()
        for (cell in 0 until border.count) {
            val first = border.begin[cell]
            forEachPixel(cell) { y, x ->
                val down = rows.weight[y].toFloat() / rows.denominator.toFloat()
                val right = columns.weight[x].toFloat() / columns.denominator.toFloat()
                var highest = slack
                labels[y * width + x] = border.candidate[first]
                for (pair in first + 1 until border.begin[cell + 1]) {
                    val lead = lead(corners, 4 * pair, 4 * first, down, right)
                    if (lead > highest) labels[y * width + x] = border.candidate[pair]
                    highest = maxOf(highest, lead + slack)
                }
            }
        }
    }

    private fun lead(
        corners: FloatArray,
        of: Int,
        over: Int,
        down: Float,
        right: Float,
    ): Float {
        val topLeft = corners[of] - corners[over]
        val topRight = corners[of + 1] - corners[over + 1]
        val bottomLeft = corners[of + 2] - corners[over + 2]
        val bottomRight = corners[of + 3] - corners[over + 3]
        val left = topLeft + down * (bottomLeft - topLeft)
        val across = topRight + down * (bottomRight - topRight) - left
        return across * right + left
    }

    private companion object {
        /** Logits this close, as a share of the largest one, are equal: quantized ones that tie stay tied. */
        const val ROUNDING = 1.0 / (1 shl 21)
    }
}
