package dev.segformeredge.demo.core

/** Names of files that somebody picked, or that the app carries. */
object PickedFiles {
    private const val SUFFIX = ".pte"

    /** The models among [names] that are carried with their metadata, in order. */
    fun models(names: List<String>): List<String> =
        names.filter { it.endsWith(SUFFIX) && ModelFiles.sidecarName(it) in names }.sorted()

    /** The one model among picked [names]. Throws [ModelException] saying what to pick instead. */
    fun model(names: List<String>): String {
        val models = names.filter { it.endsWith(SUFFIX) }
        return when (models.size) {
            1 -> models[0]

            0 -> throw ModelException(
                "There is no .pte file among ${names.joinToString()}. Pick a .pte and its .json together.",
            )

            else -> throw ModelException("These are several models: ${models.joinToString()}. Pick one and its .json.")
        }
    }

    /** [name] if it is a plain file name, as which it may be written. Throws [ModelException] for any other. */
    fun plain(name: String): String {
        if (name.isEmpty() || name == "." || name == ".." || name.any { it in "/\\\u0000" }) {
            throw ModelException("'$name' is no file name.")
        }
        return name
    }
}
