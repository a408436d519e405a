package dev.segformeredge.demo.core

/** A rectangle inside a view. */
data class Box(
    val left: Float,
    val top: Float,
    val width: Float,
    val height: Float,
)

/**
 * Where a camera's preview lies in a view, whole and centred, and how the view must transform its texture for that.
 *
 * A TextureView stretches the camera's picture over all of itself, upright only while the display is not rotated. So
 * about the view's centre the texture is scaled by [scaleX] and [scaleY], then rotated clockwise by [degrees].
 */
class Preview(
    viewWidth: Int,
    viewHeight: Int,
    frameWidth: Int,
    frameHeight: Int,
    sensorDegrees: Int,
    displayQuarterTurns: Int,
) {
    val box: Box
    val scaleX: Float
    val scaleY: Float
    val degrees: Float = -90f * displayQuarterTurns

    init {
        val natural = Orientation.ofCamera(sensorDegrees, 0, front = false)
        val width = natural.uprightWidth(frameWidth, frameHeight).toFloat()
        val height = natural.uprightHeight(frameWidth, frameHeight).toFloat()
        val turned = displayQuarterTurns % 2 == 1
        box = fit(viewWidth, viewHeight, if (turned) height else width, if (turned) width else height)
        val scale = (if (turned) box.height else box.width) / width
        scaleX = width * scale / viewWidth
        scaleY = height * scale / viewHeight
    }

    companion object {
        /** The largest box of the shape [width] x [height] in the middle of a view. */
        fun fit(
            viewWidth: Int,
            viewHeight: Int,
            width: Float,
            height: Float,
        ): Box {
            val scale = minOf(viewWidth / width, viewHeight / height)
            val boxWidth = width * scale
            val boxHeight = height * scale
            return Box((viewWidth - boxWidth) / 2, (viewHeight - boxHeight) / 2, boxWidth, boxHeight)
        }
    }
}
