package dev.segformeredge.demo.core

import java.nio.ByteBuffer

/**
 * A frame in memory of our own, so that the camera has its buffer back at once and may be closed at any time.
 *
 * The next copy overwrites the last one.
 */
class FrameCopy {
    private var buffers = Array(3) { ByteBuffer.allocate(0) }

    fun of(frame: YuvFrame): YuvFrame =
        YuvFrame(frame.width, frame.height, copy(frame.y, 0), copy(frame.u, 1), copy(frame.v, 2))

    private fun copy(
        plane: YuvPlane,
        index: Int,
    ): YuvPlane {
        val source = plane.buffer.duplicate()
        source.rewind()
        if (buffers[index].capacity() < source.remaining()) buffers[index] = ByteBuffer.allocate(source.remaining())
        val target = buffers[index]
        target.clear()
        target.put(source)
        target.flip()
        return YuvPlane(target, plane.rowStride, plane.pixelStride)
    }
}
