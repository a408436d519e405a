package dev.segformeredge.demo.ui

import android.content.Context
import android.graphics.Matrix
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraManager
import android.hardware.display.DisplayManager
import android.os.Handler
import android.os.Looper
import android.view.Display
import android.view.TextureView
import dev.segformeredge.demo.core.Orientation
import dev.segformeredge.demo.core.Preview
import dev.segformeredge.demo.core.YuvFrame

/** What the live camera asks of the screen it is part of. On the main thread. */
interface LiveCameraHost {
    /** Whether the camera may be opened; where not, asks for permission and starts the camera when it comes. */
    fun mayOpenCamera(): Boolean

    fun onNoCamera()

    fun onCameraFailed(why: String)

    fun display(): Display
}

/** The camera's preview: opened and closed with the screen, turned with the display. Used on the main thread. */
class LiveCamera(
    context: Context,
    private val host: LiveCameraHost,
    private val preview: TextureView,
    private val overlay: OverlayView,
    private val onFrame: (YuvFrame, Orientation) -> Unit,
) : TextureView.SurfaceTextureListener,
    DisplayManager.DisplayListener {
    private val cameras = context.getSystemService(Context.CAMERA_SERVICE) as CameraManager
    private val displays = context.getSystemService(Context.DISPLAY_SERVICE) as DisplayManager
    private val main = Handler(Looper.getMainLooper())
    private var choice: CameraChoice? = null
    private var feed: CameraFeed? = null
    private var resumed = false

    /** Read by the camera's thread. */
    @Volatile private var orientation = Orientation.NONE

    /** Which side's camera, if the phone has one there. */
    var front = false

    /** Off while a photo is shown. */
    var enabled = true
        set(value) {
            field = value
            if (value) start() else stop()
        }

    init {
        preview.surfaceTextureListener = this
    }

    fun resume() {
        resumed = true
        displays.registerDisplayListener(this, main)
        start()
    }

    fun pause() {
        resumed = false
        displays.unregisterDisplayListener(this)
        stop()
    }

    fun flip() {
        front = !front
        stop()
        overlay.show(null, null)
        start()
    }

    /** Opens the camera if everything for it is there; called again when something more is. */
    fun start() {
        val texture = preview.surfaceTexture
        if (!resumed || !enabled || feed != null || texture == null || !preview.isAvailable) return
        if (!host.mayOpenCamera()) return
        val found =
            try {
                CameraChoice.find(cameras, front)
            } catch (error: CameraAccessException) {
                return host.onCameraFailed(error.message.orEmpty())
            }
        if (found == null) return host.onNoCamera()
        choice = found
        place()
        lateinit var opened: CameraFeed
        opened =
            CameraFeed(cameras, found, texture, { onFrame(it, orientation) }) { why ->
                main.post { if (feed === opened) failed(why) }
            }
        feed = opened
    }

    private fun stop() {
        feed?.close()
        feed = null
    }

    private fun failed(why: String) {
        stop()
        host.onCameraFailed(why)
    }

    /** Lays the preview and the overlay in the middle of the screen, upright. */
    private fun place() {
        val camera = choice ?: return
        if (preview.width == 0 || preview.height == 0) return
        val turns = host.display().rotation
        orientation = Orientation.ofCamera(camera.sensorDegrees, turns, camera.front)
        val size = camera.size
        val place = Preview(preview.width, preview.height, size.width, size.height, camera.sensorDegrees, turns)
        val middleX = preview.width / 2f
        val middleY = preview.height / 2f
        val matrix = Matrix()
        matrix.setScale(place.scaleX, place.scaleY, middleX, middleY)
        matrix.postRotate(place.degrees, middleX, middleY)
        preview.setTransform(matrix)
        overlay.placePreview(place.box)
    }

    override fun onSurfaceTextureAvailable(
        surface: SurfaceTexture,
        width: Int,
        height: Int,
    ) = start()

    override fun onSurfaceTextureSizeChanged(
        surface: SurfaceTexture,
        width: Int,
        height: Int,
    ) = place()

    override fun onSurfaceTextureDestroyed(surface: SurfaceTexture): Boolean {
        stop()
        return true
    }

    override fun onSurfaceTextureUpdated(surface: SurfaceTexture) = Unit

    /** Also half a turn, which no configuration change reports. */
    override fun onDisplayChanged(displayId: Int) = place()

    override fun onDisplayAdded(displayId: Int) = Unit

    override fun onDisplayRemoved(displayId: Int) = Unit
}
