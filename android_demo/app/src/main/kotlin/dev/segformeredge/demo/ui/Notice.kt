package dev.segformeredge.demo.ui

import android.view.View
import android.widget.Button
import android.widget.TextView

/** A message in the middle of the screen, with or without a button. */
class Notice(
    private val panel: View,
    private val message: TextView,
    private val button: Button,
) {
    fun show(
        text: CharSequence,
        action: CharSequence? = null,
        onAction: () -> Unit = {},
    ) {
        message.text = text
        button.text = action
        button.visibility = if (action == null) View.GONE else View.VISIBLE
        button.setOnClickListener {
            hide()
            onAction()
        }
        panel.visibility = View.VISIBLE
    }

    fun hide() {
        panel.visibility = View.GONE
    }
}
