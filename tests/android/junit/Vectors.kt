package dev.segformeredge.demo.checks

import dev.segformeredge.demo.core.Json
import dev.segformeredge.demo.core.JsonFields
import dev.segformeredge.demo.core.RgbImage
import dev.segformeredge.demo.core.YuvFrame
import dev.segformeredge.demo.core.YuvPlane
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** One golden vector: numbers, texts and the names of files with arrays. */
class Case(
    private val values: Map<*, *>,
) {
    fun int(key: String): Int = (values[key] as Long).toInt()

    fun flag(key: String): Boolean = values[key] as Boolean

    fun text(key: String): String = values[key] as String

    fun colours(key: String): List<Int> = JsonFields(values, "case").colours(key)

    fun bytes(key: String): ByteArray = File(Vectors.folder, text(key)).readBytes()

    fun buffer(key: String): ByteBuffer = direct(bytes(key))

    fun image(): RgbImage = RgbImage(int("width"), int("height"), bytes("image"))

    fun frame(): YuvFrame = frame(Case(values["frame"] as Map<*, *>))

    private fun frame(case: Case): YuvFrame =
        YuvFrame(case.int("width"), case.int("height"), case.plane("y"), case.plane("u"), case.plane("v"))

    private fun plane(key: String): YuvPlane {
        val plane = Case(values[key] as Map<*, *>)
        return YuvPlane(plane.buffer("file"), plane.int("row_stride"), plane.int("pixel_stride"))
    }

    override fun toString(): String = values.toString()
}

/** The vectors that Python wrote, in the folder that the system property `vectors` names. */
object Vectors {
    val folder: File = File(requireNotNull(System.getProperty("vectors")) { "-Dvectors=FOLDER is missing" })

    private val cases: List<Case> by lazy {
        val document = Json.parse(File(folder, "cases.json").readText()) as Map<*, *>
        (document["cases"] as List<*>).map { Case(it as Map<*, *>) }
    }

    /** Calls [check] for each case of a [kind], of which there must be at least [atLeast]. */
    fun forEach(
        kind: String,
        atLeast: Int,
        check: (Case) -> Unit,
    ) {
        val chosen = cases.filter { it.text("kind") == kind }
        assertTrue("${chosen.size} cases of $kind", chosen.size >= atLeast)
        chosen.forEach(check)
    }
}

fun direct(bytes: ByteArray): ByteBuffer {
    val buffer = ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).put(bytes)
    buffer.flip()
    return buffer
}

fun bytesOf(buffer: ByteBuffer): ByteArray = ByteArray(buffer.remaining()).also { buffer.duplicate().get(it) }

fun assertSameBytes(
    case: Case,
    expected: ByteArray,
    actual: ByteArray,
) {
    assertEquals("bytes of $case", expected.size, actual.size)
    val different = expected.indices.count { expected[it] != actual[it] }
    if (different > 0) {
        val first = expected.indices.first { expected[it] != actual[it] }
        throw AssertionError(
            "$different of ${expected.size} bytes differ, the first at $first: " +
                "${actual[first]} instead of ${expected[first]}; $case",
        )
    }
}
