package dev.segformeredge.demo.core

/** A picture: rows of red, green and blue bytes. */
class RgbImage(
    val width: Int,
    val height: Int,
    val data: ByteArray = ByteArray(width * height * 3),
) {
    init {
        require(width > 0 && height > 0) { "a picture of $width x $height" }
        require(data.size == width * height * 3) { "${data.size} bytes for a picture of $width x $height" }
    }

    companion object {
        /** From pixels 0xAARRGGBB, whose alpha is left out. */
        fun fromArgb(
            pixels: IntArray,
            width: Int,
            height: Int,
        ): RgbImage {
            val image = RgbImage(width, height)
            for (i in 0 until width * height) {
                image.data[3 * i] = (pixels[i] shr 16).toByte()
                image.data[3 * i + 1] = (pixels[i] shr 8).toByte()
                image.data[3 * i + 2] = pixels[i].toByte()
            }
            return image
        }
    }
}

/** One class a pixel, row by row. */
class LabelMap(
    val width: Int,
    val height: Int,
    val data: ByteArray = ByteArray(width * height),
) {
    init {
        require(data.size == width * height) { "${data.size} bytes for a label map of $width x $height" }
    }
}
