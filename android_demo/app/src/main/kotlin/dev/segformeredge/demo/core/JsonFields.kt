package dev.segformeredge.demo.core

/** Typed access to one JSON object. Every complaint is a [ModelException] that names the file and the field. */
class JsonFields(
    private val value: Map<*, *>,
    private val where: String,
    private val prefix: String = "",
) {
    fun fail(
        key: String,
        complaint: String,
    ): Nothing = throw ModelException("$where: '$prefix$key' $complaint.")

    fun raw(key: String): Any? = if (value.containsKey(key)) value[key] else fail(key, "is missing")

    fun section(key: String): JsonFields {
        val section = raw(key) as? Map<*, *> ?: fail(key, "is not an object")
        return JsonFields(section, where, "$prefix$key.")
    }

    fun text(
        key: String,
        choices: List<String> = emptyList(),
    ): String {
        val text = raw(key) as? String ?: fail(key, "is not a text")
        if (choices.isNotEmpty() && text !in choices) fail(key, "is '$text', not one of ${choices.joinToString()}")
        return text
    }

    fun integer(key: String): Int = integer(key, raw(key))

    fun number(key: String): Double = number(key, raw(key))

    /** A list of integers, each at least [minimum], as many as [length] where it is given. */
    fun integers(
        key: String,
        length: Int? = null,
        minimum: Int = Int.MIN_VALUE,
    ): List<Int> {
        val integers = list(key, length).mapIndexed { i, item -> integer("$key[$i]", item) }
        integers.forEachIndexed { i, item -> if (item < minimum) fail("$key[$i]", "is $item, less than $minimum") }
        return integers
    }

    fun numbers(
        key: String,
        length: Int,
    ): List<Double> = list(key, length).mapIndexed { i, item -> number("$key[$i]", item) }

    fun texts(key: String): List<String> =
        list(key, null).mapIndexed { i, item -> item as? String ?: fail("$key[$i]", "is not a text") }

    /** An object whose values are texts. */
    fun mapping(key: String): Map<String, String> {
        val section = raw(key) as? Map<*, *> ?: fail(key, "is not an object")
        return section.entries.associate { (name, text) ->
            name.toString() to (text as? String ?: fail("$key.$name", "is not a text"))
        }
    }

    /** What [read] makes of the field, null where the field is null. */
    fun <T> optional(
        key: String,
        read: (String) -> T,
    ): T? = if (raw(key) == null) null else read(key)

    /** Colours [red, green, blue] of 0 to 255, each as 0xRRGGBB. */
    fun colours(key: String): List<Int> =
        list(key, null).mapIndexed { i, item ->
            val colour = item as? List<*> ?: fail("$key[$i]", "is not [red, green, blue]")
            val channels = colour.map { channel -> (channel as? Long)?.takeIf { it in 0L..255L } }
            if (channels.size != 3 ||
                null in channels
            ) {
                fail("$key[$i]", "is $colour, not [red, green, blue] of 0 to 255")
            }
            channels.filterNotNull().fold(0) { rgb, channel -> (rgb shl 8) or channel.toInt() }
        }

    private fun list(
        key: String,
        length: Int?,
    ): List<*> {
        val items = raw(key) as? List<*> ?: fail(key, "is not a list")
        if (length != null && items.size != length) fail(key, "has ${items.size} entries, not $length")
        return items
    }

    private fun integer(
        key: String,
        item: Any?,
    ): Int {
        val integer = item as? Long ?: fail(key, "is not an integer")
        if (integer.toInt().toLong() != integer) fail(key, "is $integer, which is too large")
        return integer.toInt()
    }

    private fun number(
        key: String,
        item: Any?,
    ): Double {
        val number = (item as? Number)?.toDouble() ?: fail(key, "is not a number")
        if (number.isNaN() || number.isInfinite()) fail(key, "is not a finite number")
        return number
    }
}
