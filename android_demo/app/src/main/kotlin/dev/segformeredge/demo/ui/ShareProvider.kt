package dev.segformeredge.demo.ui

import android.content.ContentProvider
import android.content.ContentValues
import android.content.Context
import android.content.Intent
import android.database.Cursor
import android.database.MatrixCursor
import android.graphics.Bitmap
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.OpenableColumns
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException

/** Hands out the one picture that was shared last, to whom the share sheet granted it. */
class ShareProvider : ContentProvider() {
    override fun onCreate(): Boolean = true

    override fun getType(uri: Uri): String = MIME

    override fun openFile(
        uri: Uri,
        mode: String,
    ): ParcelFileDescriptor {
        val folder = context ?: throw FileNotFoundException("no context")
        if (uri != ADDRESS || mode != "r") throw FileNotFoundException("only $ADDRESS is there, and only to read")
        return ParcelFileDescriptor.open(file(folder), ParcelFileDescriptor.MODE_READ_ONLY)
    }

    override fun query(
        uri: Uri,
        projection: Array<out String>?,
        selection: String?,
        selectionArgs: Array<out String>?,
        sortOrder: String?,
    ): Cursor {
        val columns = projection ?: arrayOf(OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE)
        val rows = MatrixCursor(columns)
        val picture = context?.let(::file)
        if (uri == ADDRESS && picture != null) {
            val values = mapOf(OpenableColumns.DISPLAY_NAME to NAME, OpenableColumns.SIZE to picture.length())
            rows.addRow(columns.map { values[it] })
        }
        return rows
    }

    override fun insert(
        uri: Uri,
        values: ContentValues?,
    ): Uri? = null

    override fun update(
        uri: Uri,
        values: ContentValues?,
        selection: String?,
        selectionArgs: Array<out String>?,
    ): Int = 0

    override fun delete(
        uri: Uri,
        selection: String?,
        selectionArgs: Array<out String>?,
    ): Int = 0

    companion object {
        private const val NAME = "segmented.png"
        private const val MIME = "image/png"
        private const val BEST = 100
        private val ADDRESS = Uri.parse("content://dev.segformeredge.demo.share/$NAME")

        private fun file(context: Context): File = File(context.cacheDir, NAME)

        /** Keeps [picture] and gives the intent that shares it. Throws [PictureException] on a full disk. */
        fun share(
            context: Context,
            picture: Bitmap,
        ): Intent {
            try {
                val part = File(context.cacheDir, "$NAME.part")
                // compress swallows what the stream throws, and says so only in its result.
                val whole = part.outputStream().use { picture.compress(Bitmap.CompressFormat.PNG, BEST, it) }
                if (!whole) throw IOException("the storage may be full")
                if (!part.renameTo(file(context))) throw IOException("it cannot be renamed")
            } catch (error: IOException) {
                throw PictureException("The picture cannot be written: ${error.message}.")
            }
            val send = Intent(Intent.ACTION_SEND).setType(MIME).putExtra(Intent.EXTRA_STREAM, ADDRESS)
            send.clipData = android.content.ClipData.newRawUri(NAME, ADDRESS)
            send.addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
            return Intent.createChooser(send, null)
        }
    }
}
