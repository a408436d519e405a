package dev.segformeredge.demo.core

/**
 * How the samples of one axis lie among its pixels. Pixel i lies at (i + 0.5) * samples / pixels - 0.5, kept as a
 * fraction. Two neighbouring samples bound a cell; cells without a pixel are left out.
 */
class PixelAxis(
    samples: Int,
    pixels: Int,
) {
    /** Each pixel's cell, and how far it is from the low sample to the high one in steps of 1 / [denominator]. */
    val cell = IntArray(pixels)
    val weight = IntArray(pixels)
    val denominator: Int

    /** The sample on either side of each cell. Beyond the outermost sample both are that one: the edge repeats. */
    val low: IntArray
    val high: IntArray

    /** Each cell's first pixel, and after the last cell the number of pixels. */
    val firstPixel: IntArray

    val cells: Int get() = low.size

    init {
        val positions = LongArray(pixels) { (2L * it + 1) * samples - pixels }
        val divisor = positions.fold(2L * pixels) { divisor, position -> gcd(divisor, Math.abs(position)) }
        denominator = (2L * pixels / divisor).toInt()
        val found = ArrayList<Int>()
        val first = ArrayList<Int>()
        for (pixel in 0 until pixels) {
            val position = positions[pixel] / divisor
            val sample = position.floorDiv(denominator.toLong()).toInt()
            weight[pixel] = position.mod(denominator.toLong()).toInt()
            if (found.isEmpty() || found.last() != sample) {
                found.add(sample)
                first.add(pixel)
            }
            cell[pixel] = found.size - 1
        }
        low = IntArray(found.size) { found[it].coerceIn(0, samples - 1) }
        high = IntArray(found.size) { (found[it] + 1).coerceIn(0, samples - 1) }
        firstPixel = IntArray(found.size + 1) { if (it < first.size) first[it] else pixels }
    }

    private fun gcd(
        a: Long,
        b: Long,
    ): Long = if (b == 0L) a else gcd(b, a % b)
}
