// Starts a JVM inside the calling process and runs a class's main in it.
#include <jni.h>

#include <string>
#include <vector>

extern "C" int run_java(int option_count, const char** options, const char* main_class, int count, const char** words) {
  std::vector<JavaVMOption> given(option_count);
  for (int i = 0; i < option_count; ++i) given[i].optionString = const_cast<char*>(options[i]);
  JavaVMInitArgs arguments{JNI_VERSION_1_8, option_count, given.data(), JNI_FALSE};
  JavaVM* machine = nullptr;
  JNIEnv* env = nullptr;
  if (JNI_CreateJavaVM(&machine, reinterpret_cast<void**>(&env), &arguments) != JNI_OK) return 2;
  jobjectArray passed = env->NewObjectArray(count, env->FindClass("java/lang/String"), nullptr);
  for (int i = 0; i < count; ++i) env->SetObjectArrayElement(passed, i, env->NewStringUTF(words[i]));
  jclass type = env->FindClass(main_class);
  jmethodID main = type ? env->GetStaticMethodID(type, "main", "([Ljava/lang/String;)V") : nullptr;
  if (main) env->CallStaticVoidMethod(type, main, passed);
  const bool failed = env->ExceptionCheck();
  if (failed) env->ExceptionDescribe();
  return failed ? 1 : 0;
}
