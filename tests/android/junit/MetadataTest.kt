package dev.segformeredge.demo.checks

import dev.segformeredge.demo.core.Metadata
import dev.segformeredge.demo.core.ModelException
import dev.segformeredge.demo.core.ModelFiles
import dev.segformeredge.demo.core.PickedFiles
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Assert.fail
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

/** Files that are wrong, or lack their metadata, give a message. */
class MetadataTest {
    @get:Rule
    val folder = TemporaryFolder()

    /** Whatever Python refuses the app refuses with a message, and takes what Python takes. */
    @Test
    fun sameVerdictsAsPython() =
        Vectors.forEach("sidecar", 500) { case ->
            val message = refusal { Metadata.parse(case.text("metadata"), "'model.pte.json'") }
            if (case.flag("valid")) {
                assertNull("${case.text("why")}: $message", message)
            } else {
                assertTrue("taken: ${case.text("why")}", message != null)
                assertTrue(message, message.orEmpty().startsWith("'model.pte.json'"))
            }
        }

    @Test
    fun aModelWithItsSidecarOpens() {
        val file = model()
        val opened = ModelFiles.open(file)
        assertEquals("model.pte", opened.metadata.file)
        assertEquals(8, opened.metadata.classNames.size)
        assertEquals("Apache-2.0", opened.metadata.licence)
        assertEquals(0x4682b4, opened.metadata.palette[0])
    }

    @Test
    fun aMissingSidecarIsSaid() {
        val file = model()
        sidecarOf(file).delete()
        expect("'model.pte' has no metadata: 'model.pte.json' is missing") { ModelFiles.open(file) }
    }

    @Test
    fun aChangedModelIsSaid() {
        val file = model()
        file.appendBytes(byteArrayOf(1))
        expect("'model.pte' was changed after export") { ModelFiles.open(file) }
    }

    @Test
    fun aCutSidecarIsSaid() {
        val file = model()
        val sidecar = sidecarOf(file)
        sidecar.writeText(sidecar.readText().dropLast(40))
        expect("'model.pte.json' cannot be read: it is not valid JSON") { ModelFiles.open(file) }
    }

    @Test
    fun theSidecarOfAnotherFileIsSaid() {
        val file = model()
        val other = File(file.parentFile, "other.pte")
        file.copyTo(other)
        sidecarOf(file).copyTo(sidecarOf(other))
        expect("'other.pte.json' describes 'model.pte', not 'other.pte'") { ModelFiles.open(other) }
    }

    @Test
    fun anotherFormatIsSaid() {
        val file = model()
        val sidecar = sidecarOf(file)
        sidecar.writeText(
            sidecar.readText().replace("\"executorch\"", "\"tflite\"").replace("model.pte", "model.tflite"),
        )
        expect("describes a file of format tflite") { ModelFiles.open(file) }
    }

    @Test
    fun noFileIsSaid() = expect("There is no file 'gone.pte'") { ModelFiles.open(File(folder.root, "gone.pte")) }

    @Test
    fun pickedFilesAreSorted() {
        val names = listOf("notes.txt", "b.pte", "b.pte.json", "a.pte", "a.pte.json", "c.pte")
        assertEquals(listOf("a.pte", "b.pte"), PickedFiles.models(names))
        assertEquals("c.pte", PickedFiles.model(listOf("c.pte")))
        expect("There is no .pte file among notes.txt") { PickedFiles.model(listOf("notes.txt")) }
        expect("several models: b.pte, a.pte") { PickedFiles.model(names.dropLast(1)) }
        for (name in listOf("", "..", "a/b", "a\\b")) expect("is no file name") { PickedFiles.plain(name) }
    }

    private fun model(): File {
        val file = folder.newFile("model.pte")
        file.writeText("not a network, but a file with a hash")
        var text = ""
        Vectors.forEach("sidecar", 1) { case -> if (text.isEmpty() && case.flag("valid")) text = case.text("metadata") }
        sidecarOf(file).writeText(text.replace("0".repeat(64), ModelFiles.sha256(file)))
        return file
    }

    private fun sidecarOf(file: File): File = File(file.parentFile, ModelFiles.sidecarName(file.name))

    private fun expect(
        words: String,
        action: () -> Unit,
    ) {
        val message = refusal(action)
        if (message == null) fail("nothing was refused")
        assertTrue(message, message.orEmpty().contains(words))
    }

    private fun refusal(action: () -> Unit): String? =
        try {
            action()
            null
        } catch (error: ModelException) {
            error.message
        }
}
