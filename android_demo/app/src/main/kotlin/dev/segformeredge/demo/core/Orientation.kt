package dev.segformeredge.demo.core

/**
 * How a sensor's picture is turned to stand upright: clockwise by [quarterTurns] x 90 degrees, then, if [mirrored],
 * left and right swapped.
 */
data class Orientation(
    val quarterTurns: Int,
    val mirrored: Boolean,
) {
    init {
        require(quarterTurns in 0..3) { "quarter turns are 0 to 3, not $quarterTurns" }
    }

    val swapsSides: Boolean get() = quarterTurns % 2 == 1

    fun uprightWidth(
        width: Int,
        height: Int,
    ): Int = if (swapsSides) height else width

    fun uprightHeight(
        width: Int,
        height: Int,
    ): Int = if (swapsSides) width else height

    companion object {
        val NONE = Orientation(0, false)

        /**
         * Of a camera frame. [sensorDegrees] is the camera's SENSOR_ORIENTATION, [displayQuarterTurns] what
         * Display.getRotation gives (ROTATION_0 is 0, ROTATION_90 is 1 and so on). A front camera is shown as a mirror.
         */
        fun ofCamera(
            sensorDegrees: Int,
            displayQuarterTurns: Int,
            front: Boolean,
        ): Orientation {
            val turns = sensorDegrees / 90 + if (front) displayQuarterTurns else -displayQuarterTurns
            return Orientation(turns.mod(4), front)
        }
    }
}
