plugins {
    // Brings Kotlin with it: since version 9 there is no Kotlin plugin to apply. Needs Gradle 9.6.1 or later.
    id("com.android.application") version "9.3.1" apply false
}
