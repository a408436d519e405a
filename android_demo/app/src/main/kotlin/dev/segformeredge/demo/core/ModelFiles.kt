package dev.segformeredge.demo.core

import java.io.File
import java.io.IOException
import java.security.MessageDigest

/** A model file with the metadata that was found beside it, both checked. */
class ModelFiles private constructor(
    val file: File,
    val metadata: Metadata,
) {
    companion object {
        private const val CHUNK = 1 shl 16
        private const val LARGEST_SIDECAR = 1L shl 22
        private const val FORMAT = "executorch"
        private const val HEX = "0123456789abcdef"

        fun sidecarName(file: String): String = "$file.json"

        /**
         * The model [file] and `<file>.json` beside it.
         *
         * Throws [ModelException] where one is missing or damaged, where they do not belong together, and where the
         * file was changed after export.
         */
        fun open(file: File): ModelFiles {
            if (!file.isFile) throw ModelException("There is no file '${file.name}'.")
            val sidecar = File(file.parentFile, sidecarName(file.name))
            if (!sidecar.isFile) {
                throw ModelException(
                    "'${file.name}' has no metadata: '${sidecar.name}' is missing. It was exported with it; " +
                        "pick both files together.",
                )
            }
            val metadata = Metadata.parse(text(sidecar), "'${sidecar.name}'")
            if (metadata.format != FORMAT) {
                throw ModelException(
                    "'${sidecar.name}' describes a file of format ${metadata.format}; this app runs $FORMAT (.pte).",
                )
            }
            if (metadata.file != file.name) {
                throw ModelException("'${sidecar.name}' describes '${metadata.file}', not '${file.name}'.")
            }
            for ((name, hash) in metadata.files) {
                val part = File(file.parentFile, name)
                if (!part.isFile) throw ModelException("'$name' is missing, and '${sidecar.name}' lists it.")
                if (sha256(part) != hash) {
                    throw ModelException(
                        "'$name' was changed after export: its SHA-256 is not the one in '${sidecar.name}'.",
                    )
                }
            }
            return ModelFiles(file, metadata)
        }

        /** SHA-256 in lower-case hexadecimal. Throws [ModelException] where [file] cannot be read. */
        fun sha256(file: File): String {
            val digest = MessageDigest.getInstance("SHA-256")
            reading(file) {
                file.inputStream().use { stream ->
                    val chunk = ByteArray(CHUNK)
                    while (true) {
                        val count = stream.read(chunk)
                        if (count < 0) break
                        digest.update(chunk, 0, count)
                    }
                }
            }
            return digest.digest().joinToString("") { byte ->
                HEX[byte.toInt() and 0xff shr 4].toString() +
                    HEX[byte.toInt() and 0xf]
            }
        }

        private fun text(file: File): String {
            if (file.length() > LARGEST_SIDECAR) {
                throw ModelException("'${file.name}' has ${file.length()} bytes, too many for metadata.")
            }
            return reading(file) { file.readText() }
        }

        private fun <T> reading(
            file: File,
            read: () -> T,
        ): T =
            try {
                read()
            } catch (error: IOException) {
                throw ModelException("Cannot read '${file.name}': ${error.message}.", error)
            }
    }
}
