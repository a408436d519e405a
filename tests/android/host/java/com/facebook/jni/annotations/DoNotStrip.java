package com.facebook.jni.annotations;

/** Stands in for fbjni's annotation of this name. */
public @interface DoNotStrip {}
