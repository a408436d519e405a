package dev.segformeredge.demo.core

/** Milliseconds that one picture took, part by part. */
class FrameTimes(
    val prepare: Double,
    val inference: Double,
    val labels: Double,
) {
    val total: Double get() = prepare + inference + labels
}

/** Latency of the latest pictures. Not thread-safe. */
class FrameStats(
    private val window: Int = 60,
) {
    private val latest = ArrayDeque<Double>()

    fun add(milliseconds: Double) {
        if (latest.size == window) latest.removeFirst()
        latest.addLast(milliseconds)
    }

    fun clear() = latest.clear()

    /** The value that a [share] of the latest pictures did not exceed; null before the first picture. */
    fun percentile(share: Double): Double? {
        if (latest.isEmpty()) return null
        val index = Math.ceil(share * latest.size).toInt().coerceIn(1, latest.size) - 1
        return latest.sorted()[index]
    }
}
