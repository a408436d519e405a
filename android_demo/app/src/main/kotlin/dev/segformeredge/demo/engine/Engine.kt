package dev.segformeredge.demo.engine

import java.io.Closeable
import java.nio.ByteBuffer

/** A runtime with one loaded model. Used by one thread at a time. */
interface Engine : Closeable {
    /**
     * Runs the network. [input] is a direct buffer in the shape and dtype of the metadata; the result likewise, both in
     * the processor's order of bytes. Throws [dev.segformeredge.demo.core.ModelException].
     */
    fun run(input: ByteBuffer): ByteBuffer
}
