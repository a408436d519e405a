package dev.segformeredge.demo.core

/** A model file, its metadata or its output cannot be used. The message is shown to the person holding the phone. */
class ModelException(
    message: String,
    cause: Throwable? = null,
) : Exception(message, cause)
