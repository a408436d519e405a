package dev.segformeredge.demo.core

/**
 * Reads JSON into plain values: Map, List, String, Long, Double, Boolean and null.
 *
 * Android's own org.json exists on a phone only, and it takes more than JSON; this one runs in every JVM.
 */
class Json private constructor(
    private val text: String,
) {
    private var at = 0

    private fun document(): Any? {
        val value = value(0)
        skipSpace()
        if (at < text.length) fail("something follows the end")
        return value
    }

    private fun value(depth: Int): Any? {
        if (depth > DEEPEST) fail("it is nested too deep")
        skipSpace()
        return when (val c = peek()) {
            '{' -> members(depth)
            '[' -> items(depth)
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> if (c == '-' || c in '0'..'9') number() else fail("a value is expected")
        }
    }

    private fun members(depth: Int): Map<String, Any?> {
        val members = LinkedHashMap<String, Any?>()
        at++
        if (closes('}')) return members
        while (true) {
            skipSpace()
            if (peek() != '"') fail("a name in quotes is expected")
            val name = string()
            skipSpace()
            if (peek() != ':') fail("':' is expected")
            at++
            members[name] = value(depth + 1)
            if (closes('}')) return members
            comma()
        }
    }

    private fun items(depth: Int): List<Any?> {
        val items = ArrayList<Any?>()
        at++
        if (closes(']')) return items
        while (true) {
            items.add(value(depth + 1))
            if (closes(']')) return items
            comma()
        }
    }

    private fun closes(bracket: Char): Boolean {
        skipSpace()
        if (peek() != bracket) return false
        at++
        return true
    }

    private fun comma() {
        if (peek() != ',') fail("',' or an end is expected")
        at++
    }

    private fun string(): String {
        val out = StringBuilder()
        at++
        while (true) {
            val c = peek()
            at++
            when {
                c == '"' -> return out.toString()
                c == '\\' -> out.append(escaped())
                c < ' ' -> fail("a text runs past its line")
                else -> out.append(c)
            }
        }
    }

    private fun escaped(): Char {
        val c = peek()
        at++
        return when (c) {
            '"', '\\', '/' -> c
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> unicode()
            else -> fail("'\\$c' is no escape")
        }
    }

    private fun unicode(): Char {
        if (at + HEX_DIGITS > text.length) fail("it ends in an escape")
        var code = 0
        repeat(HEX_DIGITS) {
            val digit = Character.digit(text[at++], HEX)
            if (digit < 0) fail("'\\u' needs four hexadecimal digits")
            code = code * HEX + digit
        }
        return code.toChar()
    }

    private fun word(
        word: String,
        value: Any?,
    ): Any? {
        if (!text.startsWith(word, at)) fail("a value is expected")
        at += word.length
        return value
    }

    private fun number(): Any {
        val match = NUMBER.find(text, at)
        if (match == null || match.range.first != at) fail("a number is expected")
        at = match.range.last + 1
        val digits = match.value
        if (digits.none { it in ".eE" }) return digits.toLongOrNull() ?: fail("the number $digits is too large")
        return digits.toDouble()
    }

    private fun skipSpace() {
        while (at < text.length && text[at] in " \t\r\n") at++
    }

    private fun peek(): Char = if (at < text.length) text[at] else fail("it ends too early")

    private fun fail(what: String): Nothing = throw ModelException("it is not valid JSON, character ${at + 1}: $what")

    companion object {
        private const val DEEPEST = 100
        private const val HEX = 16
        private const val HEX_DIGITS = 4
        private val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")

        /** The value that [text] holds. Throws [ModelException] where it is not JSON. */
        fun parse(text: String): Any? = Json(text).document()
    }
}
