package com.facebook.soloader.nativeloader;

/** Stands in for SoLoader's class of this name: whatever library is asked for, it is the bridge. */
public class NativeLoader {
    private static boolean initialized;

    public static boolean isInitialized() {
        return initialized;
    }

    public static void init(NativeLoaderDelegate delegate) {
        initialized = true;
    }

    public static boolean loadLibrary(String name) {
        System.load(System.getProperty("bridge"));
        return true;
    }
}
