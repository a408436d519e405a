package dev.segformeredge.demo.engine

import dev.segformeredge.demo.core.DType
import dev.segformeredge.demo.core.Metadata
import dev.segformeredge.demo.core.ModelException
import dev.segformeredge.demo.core.ModelFiles
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** A `.pte` file in ExecuTorch. */
class ExecuTorchEngine private constructor(
    private val metadata: Metadata,
    private val module: Module,
) : Engine {
    private val inputShape = shapeOf(metadata.input.shape)
    private val outputShape = shapeOf(metadata.output.shape)
    private var closed = false

    override fun run(input: ByteBuffer): ByteBuffer {
        check(!closed) { "the engine is closed" }
        val outputs =
            try {
                module.forward(EValue.from(tensor(input)))
            } catch (error: RuntimeException) {
                throw ModelException("ExecuTorch failed in '${metadata.file}': ${error.message}", error)
            }
        if (outputs.size != 1 || !outputs[0].isTensor) {
            throw ModelException("'${metadata.file}' gave ${outputs.size} results where one tensor is expected.")
        }
        return bytes(outputs[0].toTensor())
    }

    override fun close() {
        if (closed) return
        closed = true
        module.destroy()
    }

    private fun tensor(input: ByteBuffer): Tensor =
        when (metadata.input.dtype) {
            DType.FLOAT32 -> Tensor.fromBlob(input.asFloatBuffer(), inputShape)
            DType.UINT8 -> Tensor.fromBlobUnsigned(input, inputShape)
            else -> Tensor.fromBlob(input, inputShape)
        }

    private fun bytes(output: Tensor): ByteBuffer {
        val spec = metadata.output
        val dtype = output.dtype().name
        val expected = if (spec.dtype == DType.FLOAT32) "FLOAT" else spec.dtype.name
        if (dtype != expected || !output.shape().contentEquals(outputShape)) {
            throw ModelException(
                "'${metadata.file}' gave $dtype ${output.shape().toList()}; its metadata says $expected ${spec.shape}.",
            )
        }
        return when (spec.dtype) {
            DType.INT8 -> ByteBuffer.wrap(output.dataAsByteArray)

            DType.UINT8 -> ByteBuffer.wrap(output.dataAsUnsignedByteArray)

            DType.FLOAT32 -> filled(4) { asFloatBuffer().put(output.dataAsFloatArray) }

            DType.INT32 -> filled(4) { asIntBuffer().put(output.dataAsIntArray) }

            DType.INT64 -> filled(8) { asLongBuffer().put(output.dataAsLongArray) }

            DType.INT16 -> throw ModelException(
                "ExecuTorch's Java API hands out no int16, which '${metadata.file}' gives.",
            )
        }
    }

    private inline fun filled(
        bytes: Int,
        fill: ByteBuffer.() -> Unit,
    ): ByteBuffer = ByteBuffer.allocate(bytes * metadata.output.elements).order(ByteOrder.nativeOrder()).apply(fill)

    companion object {
        /** Loads the model. Throws [ModelException] where ExecuTorch refuses it or is not part of the app. */
        fun load(files: ModelFiles): ExecuTorchEngine {
            val module =
                try {
                    Module.load(files.file.absolutePath, Module.LOAD_MODE_MMAP)
                } catch (error: RuntimeException) {
                    throw ModelException("ExecuTorch cannot load '${files.file.name}': ${error.message}", error)
                } catch (error: LinkageError) {
                    throw ModelException("ExecuTorch's library is missing from this app: ${error.message}", error)
                }
            return ExecuTorchEngine(files.metadata, module)
        }

        private fun shapeOf(shape: List<Int>): LongArray = LongArray(shape.size) { shape[it].toLong() }
    }
}
