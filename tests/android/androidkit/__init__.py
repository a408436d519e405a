"""What the Android checks are made of: toolchain, build without Gradle, golden vectors, ExecuTorch under a JVM."""
