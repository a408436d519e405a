package dev.segformeredge.demo.ui

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.RectF
import android.util.AttributeSet
import android.view.View
import dev.segformeredge.demo.core.Box
import dev.segformeredge.demo.core.Preview

/** The classes' colours over the camera's preview, or over a photo that it shows itself. */
class OverlayView(
    context: Context,
    attributes: AttributeSet?,
) : View(context, attributes) {
    private val photoPaint = Paint(Paint.FILTER_BITMAP_FLAG)

    /** Classes have sharp borders: no filter. */
    private val classPaint = Paint()
    private val place = RectF()
    private var colours: Bitmap? = null
    private var photo: Bitmap? = null
    private var previewBox: Box? = null

    /** 0 shows the picture alone, 1 the classes alone. */
    var opacity = 0.5f
        set(value) {
            field = value
            invalidate()
        }

    /** Shows [colours] over [photo]; over the preview where that is null. */
    fun show(
        colours: Bitmap?,
        photo: Bitmap?,
    ) {
        this.colours = colours
        this.photo = photo
        invalidate()
    }

    /** Where the preview lies in this view. */
    fun placePreview(box: Box) {
        previewBox = box
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        val shown = photo
        val box =
            if (shown != null) {
                Preview.fit(width, height, shown.width.toFloat(), shown.height.toFloat())
            } else {
                previewBox ?: return
            }
        place.set(box.left, box.top, box.left + box.width, box.top + box.height)
        if (shown != null) {
            canvas.drawColor(Color.BLACK)
            canvas.drawBitmap(shown, null, place, photoPaint)
        }
        classPaint.alpha = Math.round(opacity * OPAQUE)
        colours?.let { canvas.drawBitmap(it, null, place, classPaint) }
    }

    private companion object {
        const val OPAQUE = 255
    }
}
