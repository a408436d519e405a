package dev.segformeredge.demo.checks

import dev.segformeredge.demo.core.ModelException
import dev.segformeredge.demo.core.ModelFiles
import dev.segformeredge.demo.core.Orientation
import dev.segformeredge.demo.engine.ExecuTorchEngine
import dev.segformeredge.demo.engine.Segmenter
import java.io.File

/**
 * Segments camera frames with a real model in the real runtime, as the app does.
 *
 * `EndToEnd MODEL FOLDER` writes the labels of each frame that FOLDER/cases.json lists, or prints the message that the
 * app would show.
 */
object EndToEnd {
    @JvmStatic
    fun main(arguments: Array<String>) {
        try {
            System.setProperty("vectors", arguments[1])
            val files = ModelFiles.open(File(arguments[0]))
            Segmenter(files.metadata, ExecuTorchEngine.load(files)).use { segmenter ->
                segmentAll(segmenter, File(arguments[1]))
            }
        } catch (error: ModelException) {
            println("message: ${error.message}")
        }
    }

    private fun segmentAll(
        segmenter: Segmenter,
        folder: File,
    ) {
        var done = 0
        Vectors.forEach("camera", 1) { case ->
            val orientation = Orientation(case.int("turns"), case.flag("mirrored"))
            val labels = segmenter.segment(case.frame(), orientation)
            File(folder, case.text("labels")).writeBytes(labels.data)
            done++
        }
        println("segmented $done frames")
    }
}
