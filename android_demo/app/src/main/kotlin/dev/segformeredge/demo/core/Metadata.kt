package dev.segformeredge.demo.core

enum class Layout { NCHW, NHWC }

/** Element types of the network's input and output, by their names in the metadata. */
enum class DType(
    val bytes: Int,
    /** What a quantized tensor of it holds; null where it is none. */
    val integers: IntRange? = null,
) {
    FLOAT32(4),
    UINT8(1, 0..255),
    INT8(1, -128..127),
    INT16(2, -32768..32767),
    INT32(4),
    INT64(8),
    ;

    val text: String get() = name.lowercase()
}

/** The network's only input or output. [scale] and [zeroPoint] where it is quantized. */
data class TensorSpec(
    val shape: List<Int>,
    val layout: Layout,
    val dtype: DType,
    val scale: Double?,
    val zeroPoint: Int?,
) {
    val elements: Int get() = shape.fold(1) { product, side -> product * side }
}

/** What an exported file's sidecar says, as far as the app needs it. See segformer_edge/runtime/metadata.py. */
data class Metadata(
    val format: String,
    val file: String,
    val model: String,
    val height: Int,
    val width: Int,
    val input: TensorSpec,
    val output: TensorSpec,
    /** Whether the network itself chooses the classes; if not, it gives logits. */
    val givesLabels: Boolean,
    val mean: List<Double>,
    val std: List<Double>,
    val classNames: List<String>,
    /** 0xRRGGBB of each class. */
    val palette: List<Int>,
    val licence: String?,
    /** SHA-256 in lower-case hexadecimal of every file that belongs to the model. */
    val files: Map<String, String>,
) {
    companion object {
        private const val SCHEMA_VERSION = 1
        private const val MOST_CLASSES = 255
        private const val LARGEST_SIDE = 1 shl 13
        private const val HASH_LENGTH = 64

        /** The least and the largest normal float32. */
        private const val LEAST_SCALE = 1.1754943508222875E-38
        private const val LARGEST_SCALE = 3.4028234663852886E38
        private val FORMATS = listOf("executorch", "tflite", "openvino", "onnx")
        private val INPUTS = listOf(DType.FLOAT32, DType.UINT8, DType.INT8)
        private val LOGITS = listOf(DType.FLOAT32, DType.INT8, DType.UINT8, DType.INT16)
        private val LABELS = listOf(DType.UINT8, DType.INT8, DType.INT16, DType.INT32, DType.INT64)

        /** Reads and checks a sidecar's [text]. Throws [ModelException] that names [where] and the field. */
        fun parse(
            text: String,
            where: String,
        ): Metadata {
            val value =
                try {
                    Json.parse(text)
                } catch (error: ModelException) {
                    throw ModelException("$where cannot be read: ${error.message}.", error)
                }
            val fields = JsonFields(value as? Map<*, *> ?: throw ModelException("$where holds no JSON object."), where)
            return read(fields).also { check(it, fields) }
        }

        private fun read(f: JsonFields): Metadata {
            val version = f.integer("schema_version")
            if (version != SCHEMA_VERSION) f.fail("schema_version", "is $version; this app reads $SCHEMA_VERSION")
            val (height, width) = f.integers("size", length = 2, minimum = 1)
            if (maxOf(height, width) > LARGEST_SIDE) f.fail("size", "is $height x $width, which is too large")
            val output = f.section("output")
            val givesLabels = output.text("kind", listOf("logits", "labels")) == "labels"
            val normalisation = f.section("normalisation")
            return Metadata(
                format = f.text("format", FORMATS),
                file = f.text("file"),
                model = f.text("model"),
                height = height,
                width = width,
                input = tensor(f.section("input"), 4, INPUTS),
                output = tensor(output, if (givesLabels) null else 4, if (givesLabels) LABELS else LOGITS),
                givesLabels = givesLabels,
                mean = normalisation.numbers("mean", 3),
                std = normalisation.numbers("std", 3),
                classNames = f.texts("class_names"),
                palette = f.colours("palette"),
                licence = f.section("weights").run { optional("licence") { text(it) } },
                files = f.mapping("files"),
            )
        }

        private fun tensor(
            f: JsonFields,
            rank: Int?,
            dtypes: List<DType>,
        ): TensorSpec {
            val shape = f.integers("shape", length = rank, minimum = 1)
            if (shape.fold(1L) { product, side -> minOf(product * side, Int.MAX_VALUE + 1L) } > Int.MAX_VALUE) {
                f.fail("shape", "is $shape, which is too large")
            }
            return TensorSpec(
                shape,
                Layout.valueOf(f.text("layout", Layout.entries.map { it.name.lowercase() }).uppercase()),
                DType.valueOf(f.text("dtype", dtypes.map { it.text }).uppercase()),
                f.optional("scale", f::number),
                f.optional("zero_point", f::integer),
            )
        }

        private fun check(
            m: Metadata,
            f: JsonFields,
        ) {
            val shape =
                if (m.input.layout == Layout.NCHW) listOf(1, 3, m.height, m.width) else listOf(1, m.height, m.width, 3)
            if (m.input.shape !=
                shape
            ) {
                f.fail("input.shape", "is ${m.input.shape}; with this size and layout it is $shape")
            }
            checkQuantization("input", m.input, needed = m.input.dtype != DType.FLOAT32, f)
            checkQuantization("output", m.output, needed = m.output.dtype != DType.FLOAT32 && !m.givesLabels, f)
            if (m.std.min() <= 0) f.fail("normalisation.std", "is ${m.std}; deviations are positive")
            checkClasses(m, f)
            for ((name, hash) in m.files) {
                if (name.isEmpty() || name == "." || name == ".." || name.any { it in "/\\\u0000" }) {
                    f.fail("files", "names '$name', which is not a plain file name")
                }
                if (hash.length != HASH_LENGTH || hash.any { it !in "0123456789abcdef" }) {
                    f.fail("files.$name", "is not a SHA-256 in lower-case hexadecimal")
                }
            }
            if (m.file !in m.files) f.fail("files", "has no hash of '${m.file}'")
        }

        private fun checkQuantization(
            name: String,
            tensor: TensorSpec,
            needed: Boolean,
            f: JsonFields,
        ) {
            val scale = tensor.scale
            if (scale != null && scale !in LEAST_SCALE..LARGEST_SCALE) {
                f.fail("$name.scale", "is $scale; a scale is positive, and a float32")
            }
            val range = tensor.dtype.integers
            val zeroPoint = tensor.zeroPoint
            if (zeroPoint != null && range != null && zeroPoint !in range) {
                f.fail(
                    "$name.zero_point",
                    "is $zeroPoint; ${tensor.dtype.text} holds ${range.first} to ${range.last}",
                )
            }
            if (needed && (scale == null || tensor.zeroPoint == null)) {
                f.fail("$name.scale", "or zero_point is null, but ${tensor.dtype.text} needs both")
            }
        }

        private fun checkClasses(
            m: Metadata,
            f: JsonFields,
        ) {
            val classes = m.classNames.size
            if (classes !in 1..MOST_CLASSES) f.fail("class_names", "has $classes entries, not 1 to $MOST_CLASSES")
            if (m.palette.size != classes) f.fail("palette", "has ${m.palette.size} colours for $classes classes")
            val shape = m.output.shape
            if (m.givesLabels) {
                if (shape.size !in 2..4 || shape.count { it != 1 } > 2) {
                    f.fail("output.shape", "is $shape, which is not one label map")
                }
            } else {
                val channels = if (m.output.layout == Layout.NCHW) shape[1] else shape[3]
                if (shape[0] != 1 || channels != classes) {
                    f.fail("output.shape", "is $shape; one image and $classes classes are expected")
                }
            }
        }
    }
}
