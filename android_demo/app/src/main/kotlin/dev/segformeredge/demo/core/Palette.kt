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
