package dev.segformeredge.demo.core

/** The classes' colours. */
class Palette(
    colours: List<Int>,
) {
    private val opaque = IntArray(256) { if (it < colours.size) BLACK or colours[it] else 0 }

    fun colour(label: Int): Int = opaque[label]

    /** Writes the colour of each of the [labels] into [pixels] as 0xAARRGGBB; what is no class stays transparent. */
    fun colourise(
        labels: LabelMap,
        pixels: IntArray,
    ) {
        for (i in labels.data.indices) pixels[i] = opaque[labels.data[i].toInt() and 0xff]
    }

    /**
     * Writes [image] with the classes' colours over it into [pixels] as 0xFFRRGGBB; [opacity] 0 is the image, 1 the
     * colours. Bit-equal to segformer_edge/runtime/pictures.py, but for what is no class: that is left as it is here.
     */
    fun blend(
        image: RgbImage,
        labels: LabelMap,
        opacity: Double,
        pixels: IntArray,
    ) {
        val ofImage = IntArray(256) { Math.rint(it * (1.0 - opacity)).toInt() }
        val ofColour = IntArray(256) { Math.rint(it * opacity).toInt() }
        for (i in labels.data.indices) {
            val colour = opaque[labels.data[i].toInt() and 0xff]
            var pixel = BLACK
            for (c in 0 until 3) {
                val shift = 16 - 8 * c
                val below = image.data[3 * i + c].toInt() and 0xff
                val above = (colour shr shift) and 0xff
                val mixed = if (colour == 0) below else minOf(ofImage[below] + ofColour[above], 255)
                pixel = pixel or (mixed shl shift)
            }
            pixels[i] = pixel
        }
    }

    companion object {
        private const val BLACK = 0xff shl 24

        /** How many pixels each class has, by its number. */
        fun count(labels: LabelMap): IntArray {
            val counts = IntArray(256)
            for (label in labels.data) counts[label.toInt() and 0xff]++
            return counts
        }
    }
}
