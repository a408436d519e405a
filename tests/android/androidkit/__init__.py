"""What the Android checks are made of: the toolchain, the build without Gradle, golden vectors, ExecuTorch under a JVM."""
