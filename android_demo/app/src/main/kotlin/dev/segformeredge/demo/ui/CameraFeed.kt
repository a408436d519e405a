package dev.segformeredge.demo.ui

import android.annotation.SuppressLint
import android.graphics.ImageFormat
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CaptureRequest
import android.media.Image
import android.media.ImageReader
import android.os.Handler
import android.os.HandlerThread
import android.util.Size
import android.view.Surface
import dev.segformeredge.demo.core.YuvFrame
import dev.segformeredge.demo.core.YuvPlane
import java.util.concurrent.CountDownLatch

/** A camera of this phone, and the size of the frames to take from it. */
class CameraChoice(
    val id: String,
    val front: Boolean,
    val sensorDegrees: Int,
    val size: Size,
    val focusMode: Int,
) {
    companion object {
        private const val WIDTH = 640
        private const val HEIGHT = 480
        private const val QUARTER_TURN = 90

        /** The first camera on that side; the first of any where there is none; null on a phone without one. */
        fun find(
            manager: CameraManager,
            front: Boolean,
        ): CameraChoice? {
            val choices = manager.cameraIdList.mapNotNull { read(manager, it) }
            return choices.firstOrNull { it.front == front } ?: choices.firstOrNull()
        }

        private fun read(
            manager: CameraManager,
            id: String,
        ): CameraChoice? {
            val about = manager.getCameraCharacteristics(id)
            val map = about.get(CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP) ?: return null
            val shown = map.getOutputSizes(SurfaceTexture::class.java)?.toSet() ?: return null
            val read = map.getOutputSizes(ImageFormat.YUV_420_888)?.filter { it in shown }.orEmpty()
            // The network sees a few hundred pixels; larger frames cost time and memory only.
            val size = read.minByOrNull { Math.abs(it.width - WIDTH) + Math.abs(it.height - HEIGHT) } ?: return null
            val modes = about.get(CameraCharacteristics.CONTROL_AF_AVAILABLE_MODES) ?: IntArray(0)
            val continuous = CaptureRequest.CONTROL_AF_MODE_CONTINUOUS_PICTURE
            return CameraChoice(
                id,
                about.get(CameraCharacteristics.LENS_FACING) == CameraCharacteristics.LENS_FACING_FRONT,
                about.get(CameraCharacteristics.SENSOR_ORIENTATION) ?: QUARTER_TURN,
                size,
                if (continuous in modes) continuous else CaptureRequest.CONTROL_AF_MODE_OFF,
            )
        }
    }
}

/**
 * One camera from opening to closing: its frames go to [texture] and to [onFrame].
 *
 * Everything happens on a thread of its own. [onFrame] is called there and may use the frame until it returns.
 * [onFailure] is called there at most once, and not after [close].
 */
class CameraFeed(
    private val manager: CameraManager,
    private val choice: CameraChoice,
    texture: SurfaceTexture,
    private val onFrame: (YuvFrame) -> Unit,
    private val onFailure: (String) -> Unit,
) {
    private val thread = HandlerThread("camera").apply { start() }
    private val handler = Handler(thread.looper)
    private val reader = ImageReader.newInstance(choice.size.width, choice.size.height, ImageFormat.YUV_420_888, 2)
    private val preview: Surface
    private var device: CameraDevice? = null
    private var session: CameraCaptureSession? = null
    private var closed = false

    /** The camera was asked for and has not answered. The thread stays until then, or the camera would stay open. */
    private var opening = false

    init {
        texture.setDefaultBufferSize(choice.size.width, choice.size.height)
        preview = Surface(texture)
        reader.setOnImageAvailableListener({ take() }, handler)
        handler.post { open() }
    }

    /** Gives everything back. Returns when that is done: then no frame comes any more. */
    fun close() {
        val released = CountDownLatch(1)
        val posted =
            handler.post {
                release()
                released.countDown()
            }
        if (posted) released.await()
    }

    @SuppressLint("MissingPermission") // the activity opens the camera only with it
    private fun open() =
        guarded {
            manager.openCamera(
                choice.id,
                object : CameraDevice.StateCallback() {
                    override fun onOpened(camera: CameraDevice) {
                        opening = false
                        if (closed) return tooLate(camera)
                        device = camera
                        guarded { startSession(camera) }
                    }

                    override fun onDisconnected(camera: CameraDevice) = lost(camera, "another app took it")

                    override fun onError(
                        camera: CameraDevice,
                        error: Int,
                    ) = lost(camera, "error $error")
                },
                handler,
            )
            opening = true
        }

    @Suppress("DEPRECATION") // its successor needs API 28
    private fun startSession(camera: CameraDevice) {
        camera.createCaptureSession(
            listOf(preview, reader.surface),
            object : CameraCaptureSession.StateCallback() {
                override fun onConfigured(configured: CameraCaptureSession) {
                    if (closed) return
                    session = configured
                    guarded { configured.setRepeatingRequest(request(camera), null, handler) }
                }

                override fun onConfigureFailed(failed: CameraCaptureSession) = fail("it takes no such frames")
            },
            handler,
        )
    }

    private fun request(camera: CameraDevice): CaptureRequest {
        val builder = camera.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
        builder.addTarget(preview)
        builder.addTarget(reader.surface)
        builder.set(CaptureRequest.CONTROL_AF_MODE, choice.focusMode)
        return builder.build()
    }

    private fun take() {
        if (closed) return
        val image = reader.acquireLatestImage() ?: return
        try {
            onFrame(YuvFrame(image.width, image.height, plane(image, 0), plane(image, 1), plane(image, 2)))
        } finally {
            image.close()
        }
    }

    private fun plane(
        image: Image,
        index: Int,
    ): YuvPlane {
        val plane = image.planes[index]
        return YuvPlane(plane.buffer, plane.rowStride, plane.pixelStride)
    }

    private fun lost(
        camera: CameraDevice,
        why: String,
    ) {
        opening = false
        if (closed) return tooLate(camera)
        camera.close()
        fail(why)
    }

    private fun tooLate(camera: CameraDevice) {
        camera.close()
        thread.quitSafely()
    }

    private fun fail(why: String) {
        if (closed) return
        release()
        onFailure(why)
    }

    private fun guarded(action: () -> Unit) {
        try {
            action()
        } catch (error: CameraAccessException) {
            fail(error.message ?: "it cannot be opened")
        } catch (error: SecurityException) {
            fail("permission was taken away")
        } catch (error: IllegalStateException) {
            fail(error.message ?: "it was closed")
        } catch (error: IllegalArgumentException) {
            fail(error.message ?: "it is gone")
        }
    }

    private fun release() {
        if (closed) return
        closed = true
        session?.close()
        device?.close()
        reader.close()
        preview.release()
        session = null
        device = null
        if (!opening) thread.quitSafely()
    }
}
