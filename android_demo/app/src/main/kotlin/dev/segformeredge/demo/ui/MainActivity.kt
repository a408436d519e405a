package dev.segformeredge.demo.ui

import android.Manifest
import android.app.Activity
import android.app.AlertDialog
import android.content.ActivityNotFoundException
import android.content.Intent
import android.content.pm.PackageManager
import android.net.Uri
import android.os.Bundle
import android.provider.Settings
import android.view.Display
import android.view.TextureView
import android.view.View
import android.widget.Button
import android.widget.SeekBar
import android.widget.TextView
import dev.segformeredge.demo.R
import dev.segformeredge.demo.core.Metadata
import dev.segformeredge.demo.core.ModelFiles

/** The one screen: the camera's preview or a photo, the classes over it, and what they cost. */
class MainActivity :
    Activity(),
    InferenceListener,
    LiveCameraHost {
    private lateinit var store: ModelStore
    private lateinit var inference: Inference
    private lateinit var camera: LiveCamera
    private lateinit var notice: Notice
    private lateinit var overlay: OverlayView
    private lateinit var legend: LegendView
    private lateinit var status: TextView
    private lateinit var photoButton: Button
    private var metadata: Metadata? = null
    private var asked = false
    private var destroyed = false

    /** A photo is shown, and the camera is off. */
    private val still get() = !camera.enabled

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.main)
        store = ModelStore(applicationContext)
        inference = Inference(this)
        overlay = view(R.id.overlay) as OverlayView
        legend = view(R.id.legend) as LegendView
        status = view(R.id.status) as TextView
        notice = Notice(view(R.id.notice), view(R.id.message) as TextView, view(R.id.action) as Button)
        camera = LiveCamera(this, this, view(R.id.preview) as TextureView, overlay, inference::offer)
        camera.front = savedInstanceState?.getBoolean(FRONT) ?: false
        button(R.id.model) { chooseModel() }
        button(R.id.flip) { if (still) goLive() else camera.flip() }
        photoButton = button(R.id.photo) { if (still) goLive() else pickPhoto() }
        button(R.id.share) { share() }
        setUpOpacity(savedInstanceState?.getInt(OPACITY))
        loadFirstModel()
    }

    override fun onResume() {
        super.onResume()
        camera.resume()
    }

    override fun onPause() {
        camera.pause()
        super.onPause()
    }

    override fun onDestroy() {
        destroyed = true
        inference.close()
        super.onDestroy()
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putBoolean(FRONT, camera.front)
        outState.putInt(OPACITY, Math.round(overlay.opacity * PERCENT))
    }

    /** Generic since API 26, not so before: with a type expected it compiles against both. */
    private fun view(id: Int): View = findViewById(id)

    private fun button(
        id: Int,
        onClick: () -> Unit,
    ): Button = (view(id) as Button).apply { setOnClickListener { onClick() } }

    private fun setUpOpacity(percent: Int?) {
        val bar = view(R.id.opacity) as SeekBar
        bar.setOnSeekBarChangeListener(
            object : SeekBar.OnSeekBarChangeListener {
                override fun onProgressChanged(
                    seekBar: SeekBar,
                    progress: Int,
                    fromUser: Boolean,
                ) {
                    overlay.opacity = progress / PERCENT
                }

                override fun onStartTrackingTouch(seekBar: SeekBar) = Unit

                override fun onStopTrackingTouch(seekBar: SeekBar) = Unit
            },
        )
        bar.progress = percent ?: bar.progress
        overlay.opacity = bar.progress / PERCENT
    }

    // What the camera asks

    override fun mayOpenCamera(): Boolean {
        if (checkSelfPermission(Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED) return true
        val why = getString(R.string.camera_why)
        when {
            shouldShowRequestPermissionRationale(Manifest.permission.CAMERA) -> {
                notice.show(why, getString(R.string.allow)) { requestCamera() }
            }

            // Refused for good: only the settings can change that.
            asked -> {
                notice.show(why, getString(R.string.settings)) { openSettings() }
            }

            else -> {
                requestCamera()
            }
        }
        return false
    }

    override fun onNoCamera() = notice.show(getString(R.string.no_camera))

    override fun onCameraFailed(why: String) =
        notice.show(getString(R.string.camera_failed, why), getString(R.string.try_again)) { camera.start() }

    @Suppress("DEPRECATION") // Context.getDisplay needs API 30
    override fun display(): Display = windowManager.defaultDisplay

    private fun requestCamera() {
        requestPermissions(arrayOf(Manifest.permission.CAMERA), CAMERA_REQUEST)
    }

    override fun onRequestPermissionsResult(
        requestCode: Int,
        permissions: Array<out String>,
        grantResults: IntArray,
    ) {
        // Empty where the dialog was put away; the next start of the camera asks again.
        if (requestCode != CAMERA_REQUEST || grantResults.isEmpty()) return
        asked = true
        if (grantResults[0] == PackageManager.PERMISSION_GRANTED) {
            notice.hide()
            if (metadata == null && store.carried().isEmpty()) showNoModel()
        }
        camera.start()
    }

    private fun openSettings() =
        open {
            startActivity(
                Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS, Uri.fromParts("package", packageName, null)),
            )
        }

    // Models

    private fun loadFirstModel() {
        val first = store.carried().firstOrNull()
        if (first == null) return showNoModel()
        status.setText(R.string.loading)
        inference.load { store.openCarried(first) }
    }

    private fun showNoModel() = notice.show(getString(R.string.no_model), getString(R.string.model)) { pickModel() }

    private fun chooseModel() {
        val carried = store.carried()
        if (carried.isEmpty()) return pickModel()
        val items = carried + getString(R.string.pick_file)
        AlertDialog
            .Builder(this)
            .setTitle(R.string.model)
            .setItems(items.toTypedArray<CharSequence>()) { _, i ->
                if (i == carried.size) pickModel() else load { store.openCarried(carried[i]) }
            }.show()
    }

    private fun load(find: () -> ModelFiles) {
        notice.hide()
        metadata = null
        overlay.show(null, null)
        status.setText(R.string.loading)
        inference.load(find)
        if (still) goLive()
    }

    private fun pickModel() {
        val model = document("*/*").putExtra(Intent.EXTRA_ALLOW_MULTIPLE, true)
        open { startActivityForResult(model, MODEL_REQUEST) }
    }

    // Photos and sharing

    private fun pickPhoto() = open { startActivityForResult(document("image/*"), PHOTO_REQUEST) }

    private fun document(type: String): Intent =
        Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType(type)

    override fun onActivityResult(
        requestCode: Int,
        resultCode: Int,
        data: Intent?,
    ) {
        if (resultCode != RESULT_OK || data == null) return
        val clip = data.clipData
        val uris = if (clip == null) listOfNotNull(data.data) else List(clip.itemCount) { clip.getItemAt(it).uri }
        if (uris.isEmpty()) return
        if (requestCode == MODEL_REQUEST) load { store.openPicked(uris) }
        if (requestCode == PHOTO_REQUEST) showPhoto(uris[0])
    }

    private fun showPhoto(uri: Uri) {
        camera.enabled = false
        notice.hide()
        photoButton.setText(R.string.live)
        val complaint = getString(R.string.bad_photo)
        inference.photo { Photo.read(applicationContext, uri, complaint) }
    }

    private fun goLive() {
        photoButton.setText(R.string.photo)
        overlay.show(null, null)
        camera.enabled = true
    }

    private fun share() =
        inference.blend(overlay.opacity.toDouble()) { picture ->
            val intent = picture?.let { ShareProvider.share(applicationContext, it) }
            runOnUiThread {
                if (destroyed) return@runOnUiThread
                if (intent == null) notice.show(getString(R.string.no_picture)) else open { startActivity(intent) }
            }
        }

    private fun open(action: () -> Unit) {
        try {
            action()
        } catch (_: ActivityNotFoundException) {
            notice.show(getString(R.string.cannot_open))
        }
    }

    // What the inference thread tells

    override fun onModel(metadata: Metadata) {
        this.metadata = metadata
        notice.hide()
        status.text = metadata.model
        camera.start()
    }

    override fun onSegmented(result: Segmented) {
        val about = metadata ?: return
        // A frame that was under way when a photo was chosen, or the other way round.
        if (still != (result.photo != null)) return
        overlay.show(result.colours, result.photo)
        legend.show(about.classNames, about.palette, result.counts)
        val (median, slow, network, memory) = result.figures
        status.text = getString(R.string.status, about.model, about.width, about.height, median, slow, network, memory)
    }

    override fun onMessage(message: String) {
        status.text = ""
        overlay.show(null, null)
        notice.show(message, getString(R.string.model)) { chooseModel() }
    }

    private companion object {
        const val FRONT = "front"
        const val OPACITY = "opacity"
        const val PERCENT = 100f
        const val CAMERA_REQUEST = 1
        const val MODEL_REQUEST = 2
        const val PHOTO_REQUEST = 3
    }
}
