plugins {
    id("com.android.application")
}

android {
    namespace = "dev.segformeredge.demo"
    compileSdk = 36

    defaultConfig {
        applicationId = "dev.segformeredge.demo"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
        // What ExecuTorch's library is built for.
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    // Models hardly compress, and they are copied out of the app at the first start.
    androidResources {
        noCompress += "pte"
    }
}

dependencies {
    // The release that `segformer-edge[executorch]` exports with.
    implementation("org.pytorch:executorch-android:1.4.1")
    implementation("org.jetbrains.kotlin:kotlin-stdlib:2.2.10")
}
