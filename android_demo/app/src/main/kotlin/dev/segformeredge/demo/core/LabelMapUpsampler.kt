package dev.segformeredge.demo.core

/**
 * A label map to another size: of the four samples around a pixel, the class of most weight in bilinear interpolation
 * with half-pixel centres, the first of equal ones. In integers, so bit-equal to
 * segformer_edge/data/label_upsampling.py. Made once for the sizes; not thread-safe.
 */
class LabelMapUpsampler(
    height: Int,
    private val width: Int,
    val outWidth: Int,
    val outHeight: Int,
) {
    private val rows = PixelAxis(height, outHeight)
    private val columns = PixelAxis(width, outWidth)

    /** The samples around a pixel, top left, top right, bottom left, bottom right, and their weights. */
    private val corner = IntArray(4)
    private val weight = LongArray(4)

    /** Writes the labels of [labels], (height, width), into [out]. */
    fun upsample(
        labels: ByteArray,
        out: LabelMap,
    ) {
        require(out.width == outWidth && out.height == outHeight) { "a label map of another size" }
        for (y in 0 until outHeight) {
            val top = rows.low[rows.cell[y]] * width
            val bottom = rows.high[rows.cell[y]] * width
            for (x in 0 until outWidth) {
                val left = columns.low[columns.cell[x]]
                val right = columns.high[columns.cell[x]]
                val label = labels[top + left]
                val agree =
                    label == labels[top + right] && label == labels[bottom + left] && label == labels[bottom + right]
                out.data[y * outWidth + x] =
                    if (agree) {
                        label
                    } else {
                        corner[0] = labels[top + left].toInt() and 0xff
                        corner[1] = labels[top + right].toInt() and 0xff
                        corner[2] = labels[bottom + left].toInt() and 0xff
                        corner[3] = labels[bottom + right].toInt() and 0xff
                        winner(rows.weight[y].toLong(), columns.weight[x].toLong())
                    }
            }
        }
    }

    private fun winner(
        down: Long,
        right: Long,
    ): Byte {
        val up = rows.denominator - down
        val left = columns.denominator - right
        weight[0] = up * left
        weight[1] = up * right
        weight[2] = down * left
        weight[3] = down * right
        var most = -1L
        var winner = 0
        for (k in 0 until 4) {
            var votes = 0L
            for (j in 0 until 4) if (corner[j] == corner[k]) votes += weight[j]
            if (votes > most || (votes == most && corner[k] < winner)) {
                most = votes
                winner = corner[k]
            }
        }
        return winner.toByte()
    }
}
