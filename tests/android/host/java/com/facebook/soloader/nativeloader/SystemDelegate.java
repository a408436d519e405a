package com.facebook.soloader.nativeloader;

/** Stands in for SoLoader's class of this name. */
public class SystemDelegate implements NativeLoaderDelegate {}
