package dev.segformeredge.demo.ui

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import java.io.File
import java.io.IOException

/** A photo from the gallery. */
object Photo {
    private const val LARGEST_SIDE = 1280

    /** [uri] upright and at most 1280 pixels on a side. Throws [PictureException] saying [complaint]. */
    fun read(
        context: Context,
        uri: Uri,
        complaint: String,
    ): Bitmap {
        val bytes = context.contentResolver.readAll(uri, complaint)
        val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
        BitmapFactory.decodeByteArray(bytes, 0, bytes.size, bounds)
        val largest = maxOf(bounds.outWidth, bounds.outHeight)
        if (largest <= 0) throw PictureException(complaint)
        val options = BitmapFactory.Options()
        options.inPreferredConfig = Bitmap.Config.ARGB_8888
        while (largest / (options.inSampleSize.coerceAtLeast(1) * 2) >= LARGEST_SIDE) {
            options.inSampleSize = options.inSampleSize.coerceAtLeast(1) * 2
        }
        val photo = BitmapFactory.decodeByteArray(bytes, 0, bytes.size, options) ?: throw PictureException(complaint)
        return upright(photo, orientation(context, bytes))
    }

    private fun upright(
        photo: Bitmap,
        orientation: Int,
    ): Bitmap {
        val matrix = Matrix()
        when (orientation) {
            ExifInterface.ORIENTATION_FLIP_HORIZONTAL -> matrix.postScale(-1f, 1f)
            ExifInterface.ORIENTATION_ROTATE_180 -> matrix.postRotate(180f)
            ExifInterface.ORIENTATION_FLIP_VERTICAL -> matrix.postScale(1f, -1f)
            ExifInterface.ORIENTATION_TRANSPOSE -> matrix.apply { postRotate(90f) }.postScale(-1f, 1f)
            ExifInterface.ORIENTATION_ROTATE_90 -> matrix.postRotate(90f)
            ExifInterface.ORIENTATION_TRANSVERSE -> matrix.apply { postRotate(-90f) }.postScale(-1f, 1f)
            ExifInterface.ORIENTATION_ROTATE_270 -> matrix.postRotate(270f)
        }
        val scale = LARGEST_SIDE.toFloat() / maxOf(photo.width, photo.height)
        if (scale < 1f) matrix.postScale(scale, scale)
        if (matrix.isIdentity) return photo
        return Bitmap.createBitmap(photo, 0, 0, photo.width, photo.height, matrix, true)
    }

    /** Through a file: reading it from memory needs API 24. */
    private fun orientation(
        context: Context,
        bytes: ByteArray,
    ): Int {
        val file = File(context.cacheDir, "photo")
        return try {
            file.writeBytes(bytes)
            val normal = ExifInterface.ORIENTATION_NORMAL
            ExifInterface(file.path).getAttributeInt(ExifInterface.TAG_ORIENTATION, normal)
        } catch (_: IOException) {
            ExifInterface.ORIENTATION_NORMAL
        } finally {
            file.delete()
        }
    }
}
