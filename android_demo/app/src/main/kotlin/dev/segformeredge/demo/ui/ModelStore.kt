package dev.segformeredge.demo.ui

import android.content.ContentResolver
import android.content.Context
import android.net.Uri
import android.provider.OpenableColumns
import dev.segformeredge.demo.core.ModelException
import dev.segformeredge.demo.core.ModelFiles
import dev.segformeredge.demo.core.PickedFiles
import java.io.File
import java.io.IOException
import java.io.InputStream

/** Models that the app carries and models that somebody picks. ExecuTorch opens files only, so both are copied. */
class ModelStore(
    private val context: Context,
) {
    /** Names of the models in the app's assets. */
    fun carried(): List<String> =
        PickedFiles.models(
            context.assets
                .list("")
                ?.toList()
                .orEmpty(),
        )

    /** A model from the assets. Throws [ModelException]. Takes a while: not for the main thread. */
    fun openCarried(name: String): ModelFiles {
        val folder = File(context.filesDir, "carried")
        val sidecar = ModelFiles.sidecarName(name)
        val copied = File(folder, sidecar)
        val current =
            reading(sidecar) { context.assets.open(sidecar).use { it.readBytes() } }
        // The sidecar has the model's hash: where it is the same, so is the model, and opening checks that.
        if (copied.isFile && copied.readBytes().contentEquals(current) && File(folder, name).isFile) {
            try {
                return ModelFiles.open(File(folder, name))
            } catch (_: ModelException) {
                // The copy was damaged, by a power cut perhaps: what the app carries is good.
            }
        }
        copied.delete()
        reading(name) { copy(context.assets.open(name), folder, name) }
        copy(current.inputStream(), folder, sidecar)
        return ModelFiles.open(File(folder, name))
    }

    /** The model among the files that somebody picked. Throws [ModelException]. Not for the main thread. */
    fun openPicked(uris: List<Uri>): ModelFiles {
        val named = uris.associateBy { PickedFiles.plain(nameOf(it)) }
        val model = PickedFiles.model(named.keys.toList())
        val folder = File(context.filesDir, "picked")
        folder.listFiles()?.forEach { it.delete() }
        for ((name, uri) in named) {
            reading(name) {
                copy(context.contentResolver.openInputStream(uri) ?: throw IOException("it is gone"), folder, name)
            }
        }
        return ModelFiles.open(File(folder, model))
    }

    private fun nameOf(uri: Uri): String {
        val columns = arrayOf(OpenableColumns.DISPLAY_NAME)
        val name =
            context.contentResolver.query(uri, columns, null, null, null)?.use { row ->
                if (row.moveToFirst()) row.getString(0) else null
            }
        return name ?: uri.lastPathSegment.orEmpty().substringAfterLast('/')
    }

    /** Whole or not at all. */
    private fun copy(
        from: InputStream,
        folder: File,
        name: String,
    ) = reading(name) {
        from.use { source ->
            if (!folder.isDirectory && !folder.mkdirs()) throw IOException("no folder for it")
            val part = File(folder, "$name.part")
            part.outputStream().use { source.copyTo(it) }
            if (!part.renameTo(File(folder, name))) throw IOException("it cannot be renamed")
        }
    }

    private fun <T> reading(
        name: String,
        read: () -> T,
    ): T =
        try {
            read()
        } catch (error: IOException) {
            throw ModelException("Cannot copy '$name': ${error.message}.", error)
        } catch (error: SecurityException) {
            throw ModelException("'$name' may not be read: ${error.message}.", error)
        }
}

/** A picture cannot be read or written; the message is shown. */
class PictureException(
    message: String,
) : Exception(message)

/** Reads all of [uri]. Throws [PictureException] saying [complaint]. */
fun ContentResolver.readAll(
    uri: Uri,
    complaint: String,
): ByteArray =
    try {
        openInputStream(uri)?.use { it.readBytes() } ?: throw PictureException(complaint)
    } catch (error: IOException) {
        throw PictureException("$complaint ${error.message}")
    } catch (error: SecurityException) {
        throw PictureException("$complaint ${error.message}")
    }
