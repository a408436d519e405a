package dev.segformeredge.demo.ui

import android.content.Context
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.util.AttributeSet
import android.util.TypedValue
import android.view.View

/** The classes in the picture, most pixels first: a square of the colour, the name, the share. */
class LegendView(
    context: Context,
    attributes: AttributeSet?,
) : View(context, attributes) {
    private class Line(
        val colour: Int,
        val text: String,
    )

    private val square = Paint()
    private val writing =
        Paint(Paint.ANTI_ALIAS_FLAG).apply {
            color = Color.WHITE
            textSize = scaled(TEXT_SP)
        }
    private val lineHeight = writing.fontSpacing
    private var lines = emptyList<Line>()

    /** [counts] are the pixels of each class. */
    fun show(
        names: List<String>,
        colours: List<Int>,
        counts: IntArray,
    ) {
        val total = Math.max(1, counts.sum())
        val found = names.indices.filter { counts[it] * LEAST_SHARE > total }.sortedByDescending { counts[it] }
        val before = lines.size
        lines = found.take(MOST_LINES).map { Line(OPAQUE or colours[it], "${names[it]} ${100 * counts[it] / total} %") }
        contentDescription = lines.joinToString { it.text }
        if (lines.size != before) requestLayout()
        invalidate()
    }

    override fun onMeasure(
        widthMeasureSpec: Int,
        heightMeasureSpec: Int,
    ) {
        val height = Math.ceil((lineHeight * lines.size).toDouble()).toInt()
        setMeasuredDimension(
            resolveSize(scaled(WIDTH_SP).toInt(), widthMeasureSpec),
            resolveSize(height, heightMeasureSpec),
        )
    }

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        for ((i, line) in lines.withIndex()) {
            val top = i * lineHeight
            square.color = line.colour
            canvas.drawRect(0f, top + lineHeight / 6, lineHeight * 2 / 3, top + lineHeight * 5 / 6, square)
            canvas.drawText(line.text, lineHeight, top - writing.ascent(), writing)
        }
    }

    private fun scaled(sp: Float): Float =
        TypedValue.applyDimension(TypedValue.COMPLEX_UNIT_SP, sp, resources.displayMetrics)

    private companion object {
        const val TEXT_SP = 13f
        const val WIDTH_SP = 170f
        const val MOST_LINES = 8

        /** Classes with less than one part in this many are left out. */
        const val LEAST_SHARE = 200L
        const val OPAQUE = 0xff shl 24
    }
}
