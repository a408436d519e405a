package dev.segformeredge.demo.core

/**
 * The cells of a label map whose four corners are not all of one class, and the classes that can win in each: those
 * whose largest corner reaches what some class has at every corner, but for classes that another exceeds everywhere.
 *
 * Cells come in groups. Float logits need that: ties are told from rounding by the largest logit of a group, and the
 * groups are those of segformer_edge/data/border_cells.py. Logits are (classes, samples) or (samples, classes).
 */
class BorderCells(
    private val classes: Int,
    private val rows: PixelAxis,
    private val columns: PixelAxis,
    private val stride: Int,
    /** How far apart a sample's classes, and a class's samples, lie. */
    private val classStep: Int,
    private val sampleStep: Int,
) {
    /** Rows and columns of the group's cells, and where each cell's candidates begin; one more entry than cells. */
    var count = 0
        private set
    var cellRow = IntArray(0)
        private set
    var cellColumn = IntArray(0)
        private set
    var begin = IntArray(1)
        private set

    /** The candidates' classes, a cell's own in ascending order, and their logits at the four corners. */
    var candidates = 0
        private set
    var candidate = ByteArray(0)
        private set
    var corners = FloatArray(0)
        private set

    private var mixedRow = IntArray(0)
    private var mixedColumn = IntArray(0)
    private val corner = IntArray(4)

    /** Fills this with one group after another and calls [draw] for each. [best] is each sample's largest class. */
    fun forEachGroup(
        logits: FloatArray,
        best: ByteArray,
        draw: () -> Unit,
    ) {
        val mixed = findMixed(best)
        val step = maxOf(1, GATHERED_BYTES / (4 * classes * FLOAT_BYTES))
        count = 0
        candidates = 0
        for (start in 0 until mixed step step) {
            val end = minOf(start + step, mixed)
            var possible = 0
            for (i in start until end) possible += countPossible(logits, mixedRow[i], mixedColumn[i])
            // In noise nearly every class can win: then fewer cells at a time.
            val parts = 1 + possible / PAIRS
            val size = (end - start + parts - 1) / parts
            for (first in start until end step size) {
                val last = minOf(first + size, end)
                for (i in first until last) add(logits, best, mixedRow[i], mixedColumn[i])
                if (last == mixed || candidates >= PAIRS) {
                    draw()
                    count = 0
                    candidates = 0
                }
            }
        }
    }

    private fun findMixed(best: ByteArray): Int {
        var found = 0
        for (y in 0 until rows.cells) {
            for (x in 0 until columns.cells) {
                locate(y, x)
                val first = best[corner[0]]
                if (first == best[corner[1]] && first == best[corner[2]] && first == best[corner[3]]) continue
                if (found == mixedRow.size) {
                    mixedRow = mixedRow.copyOf(grown(found))
                    mixedColumn = mixedColumn.copyOf(grown(found))
                }
                mixedRow[found] = y
                mixedColumn[found++] = x
            }
        }
        return found
    }

    private fun countPossible(
        logits: FloatArray,
        y: Int,
        x: Int,
    ): Int {
        locate(y, x)
        val floor = largestOfSmallest(logits)
        var possible = 0
        for (c in 0 until classes) if (largest(logits, c) >= floor) possible++
        return possible
    }

    private fun add(
        logits: FloatArray,
        best: ByteArray,
        y: Int,
        x: Int,
    ) {
        locate(y, x)
        val rivals = intArrayOf(best[corner[0]].toInt() and 0xff, best[corner[3]].toInt() and 0xff)
        val floor = largestOfSmallest(logits)
        if (count + 1 >= begin.size) {
            val size = grown(count)
            cellRow = cellRow.copyOf(size)
            cellColumn = cellColumn.copyOf(size)
            begin = begin.copyOf(size + 1)
        }
        cellRow[count] = y
        cellColumn[count] = x
        begin[count] = candidates
        for (c in 0 until classes) {
            if (largest(logits, c) < floor || rivals.any { exceeds(logits, it, c) }) continue
            if (candidates == candidate.size) {
                candidate = candidate.copyOf(grown(candidates))
                corners = corners.copyOf(4 * grown(candidates))
            }
            for (k in 0 until 4) corners[4 * candidates + k] = at(logits, c, k)
            candidate[candidates++] = c.toByte()
        }
        begin[++count] = candidates
    }

    /** Top left, top right, bottom left, bottom right. */
    private fun locate(
        y: Int,
        x: Int,
    ) {
        corner[0] = rows.low[y] * stride + columns.low[x]
        corner[1] = rows.low[y] * stride + columns.high[x]
        corner[2] = rows.high[y] * stride + columns.low[x]
        corner[3] = rows.high[y] * stride + columns.high[x]
    }

    private fun at(
        logits: FloatArray,
        c: Int,
        k: Int,
    ): Float = logits[c * classStep + corner[k] * sampleStep]

    private fun largest(
        logits: FloatArray,
        c: Int,
    ): Float = maxOf(maxOf(at(logits, c, 0), at(logits, c, 1)), maxOf(at(logits, c, 2), at(logits, c, 3)))

    private fun largestOfSmallest(logits: FloatArray): Float {
        var largest = Float.NEGATIVE_INFINITY
        for (c in 0 until classes) {
            val smallest = minOf(minOf(at(logits, c, 0), at(logits, c, 1)), minOf(at(logits, c, 2), at(logits, c, 3)))
            if (smallest > largest) largest = smallest
        }
        return largest
    }

    private fun exceeds(
        logits: FloatArray,
        rival: Int,
        c: Int,
    ): Boolean {
        for (k in 0 until 4) if (at(logits, rival, k) <= at(logits, c, k)) return false
        return true
    }

    private companion object {
        const val GATHERED_BYTES = 1 shl 19
        const val PAIRS = 1 shl 13
        const val FLOAT_BYTES = 4

        fun grown(size: Int): Int = maxOf(64, 2 * size)
    }
}
