package com.facebook.jni;

/** Stands in for fbjni's class of this name: owns an object of the bridge. */
public class HybridData {
    private long pointer;

    public HybridData(long pointer) {
        this.pointer = pointer;
    }

    public synchronized void resetNative() {
        if (pointer != 0) {
            free(pointer);
        }
        pointer = 0;
    }

    public boolean isValid() {
        return pointer != 0;
    }

    private static native void free(long pointer);
}
