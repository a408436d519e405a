package com.facebook.soloader.nativeloader;

/** Stands in for SoLoader's interface of this name. */
public interface NativeLoaderDelegate {}
