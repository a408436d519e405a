// The native half of org.pytorch.executorch.Module for a desktop JVM, on the runtime that PyPI's executorch ships.
//
// On a phone ExecuTorch's own library has these functions. Here the JVM runs inside a Python process that has loaded
// the Python binding, whose library holds the runtime, the kernels and XNNPACK. Only for the checks.
#include <executorch/runtime/core/data_loader.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <jni.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace executorch::runtime;
using executorch::aten::ScalarType;
using executorch::aten::Tensor;

namespace {

constexpr size_t kAlignment = 64;

/// Thrown for an error of the runtime, with its number.
struct Failure : std::runtime_error {
  Failure(const std::string& what, Error error) : std::runtime_error(what), error(error) {}
  Error error;
};

void check(const std::string& what, Error error) {
  if (error != Error::Ok) throw Failure(what, error);
}

template <typename T>
T& check(const std::string& what, Result<T>& result) {
  check(what, result.error());
  return result.get();
}

struct Free {
  void operator()(void* pointer) const { std::free(pointer); }
};
using Block = std::unique_ptr<void, Free>;

Block make_block(size_t size) {
  return Block(std::aligned_alloc(kAlignment, (size + kAlignment) / kAlignment * kAlignment));
}

/// Hands out blocks and frees them all at its end.
class Blocks final : public MemoryAllocator {
 public:
  Blocks() : MemoryAllocator(0, nullptr) {}

  void* allocate(size_t size, size_t) override {
    blocks_.push_back(make_block(size));
    return blocks_.back().get();
  }

  void reset() override { blocks_.clear(); }

 private:
  std::vector<Block> blocks_;
};

/// A file, read whole.
class FileLoader final : public DataLoader {
 public:
  explicit FileLoader(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw Failure("Cannot open " + path, Error::AccessFailed);
    size_ = file.tellg();
    data_ = make_block(size_);
    file.seekg(0).read(static_cast<char*>(data_.get()), size_);
    if (!file) throw Failure("Cannot read " + path, Error::AccessFailed);
  }

  Result<FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo&) const override {
    if (offset > size_ || size > size_ - offset) return Error::InvalidArgument;
    return FreeableBuffer(static_cast<const char*>(data_.get()) + offset, size, nullptr);
  }

  Result<size_t> size() const override { return size_; }

 private:
  size_t size_;
  Block data_;
};

/// A program and its method "forward" with the memory that the program plans.
class LoadedProgram {
 public:
  explicit LoadedProgram(const std::string& path)
      : loader_(path), program_(Program::load(&loader_, Program::Verification::InternalConsistency)) {
    check("Cannot load " + path, program_);
    auto about = program_->method_meta("forward");
    check("No method forward", about);
    for (size_t i = 0; i < about->num_memory_planned_buffers(); ++i) {
      const size_t size = about->memory_planned_buffer_size(i).get();
      buffers_.push_back(make_block(size));
      spans_.emplace_back(static_cast<uint8_t*>(buffers_.back().get()), size);
    }
    planned_ = std::make_unique<HierarchicalAllocator>(Span<Span<uint8_t>>(spans_.data(), spans_.size()));
    memory_ = std::make_unique<MemoryManager>(&method_memory_, planned_.get(), &temporary_memory_);
    method_ = std::make_unique<Result<Method>>(program_->load_method("forward", memory_.get()));
    check("Cannot load forward", *method_);
  }

  Method& forward() { return method_->get(); }

 private:
  FileLoader loader_;
  Result<Program> program_;
  std::vector<Block> buffers_;
  std::vector<Span<uint8_t>> spans_;
  Blocks method_memory_;
  Blocks temporary_memory_;
  std::unique_ptr<HierarchicalAllocator> planned_;
  std::unique_ptr<MemoryManager> memory_;
  std::unique_ptr<Result<Method>> method_;
};

/// Runs `body`; what it throws becomes the Java exception that a phone would see.
template <typename F>
auto guarded(JNIEnv* env, F body) -> decltype(body()) {
  try {
    return body();
  } catch (const Failure& failure) {
    jclass type = env->FindClass("org/pytorch/executorch/ExecutorchRuntimeException");
    jmethodID make = env->GetMethodID(type, "<init>", "(ILjava/lang/String;)V");
    jstring what = env->NewStringUTF(failure.what());
    env->Throw(static_cast<jthrowable>(env->NewObject(type, make, static_cast<jint>(failure.error), what)));
    return nullptr;
  }
}

std::string text(JNIEnv* env, jstring value) {
  const char* characters = env->GetStringUTFChars(value, nullptr);
  std::string copy(characters);
  env->ReleaseStringUTFChars(value, characters);
  return copy;
}

LoadedProgram& program_of(JNIEnv* env, jobject module) {
  jfieldID field = env->GetFieldID(env->GetObjectClass(module), "mHybridData", "Lcom/facebook/jni/HybridData;");
  jobject data = env->GetObjectField(module, field);
  jlong pointer = env->GetLongField(data, env->GetFieldID(env->GetObjectClass(data), "pointer", "J"));
  return *reinterpret_cast<LoadedProgram*>(pointer);
}

jobject call(JNIEnv* env, jobject object, const char* type, const char* name, const char* signature) {
  return env->CallObjectMethod(object, env->GetMethodID(env->FindClass(type), name, signature));
}

constexpr char kTensor[] = "org/pytorch/executorch/Tensor";
constexpr char kValue[] = "org/pytorch/executorch/EValue";

/// Copies the Java tensor's bytes into the method's planned input.
void set_input(JNIEnv* env, Method& method, size_t index, jobject value) {
  jobject tensor = call(env, value, kValue, "toTensor", "()Lorg/pytorch/executorch/Tensor;");
  jobject buffer = call(env, tensor, kTensor, "getRawDataBuffer", "()Ljava/nio/Buffer;");
  jint dtype = env->CallIntMethod(tensor, env->GetMethodID(env->FindClass(kTensor), "dtypeJniCode", "()I"));
  auto shape = static_cast<jlongArray>(call(env, tensor, kTensor, "shape", "()[J"));
  std::vector<jlong> sides(env->GetArrayLength(shape));
  env->GetLongArrayRegion(shape, 0, sides.size(), sides.data());
  std::vector<executorch::aten::SizesType> sizes(sides.begin(), sides.end());
  std::vector<executorch::aten::DimOrderType> order(sides.size());
  std::vector<executorch::aten::StridesType> strides(sides.size());
  for (int i = static_cast<int>(sizes.size()) - 1, step = 1; i >= 0; step *= sizes[i--]) {
    order[i] = i;
    strides[i] = step;
  }
  executorch::runtime::etensor::TensorImpl impl(
      static_cast<ScalarType>(dtype), sizes.size(), sizes.data(), env->GetDirectBufferAddress(buffer), order.data(),
      strides.data());
  check("Input " + std::to_string(index), method.set_input(EValue(Tensor(&impl)), index));
}

jobject to_java(JNIEnv* env, const Tensor& tensor) {
  // The Java tensor keeps the buffer; its memory lives as long as this process, which is short.
  void* copy = std::malloc(tensor.nbytes());
  std::memcpy(copy, tensor.const_data_ptr(), tensor.nbytes());
  jobject buffer = env->NewDirectByteBuffer(copy, tensor.nbytes());
  jclass order = env->FindClass("java/nio/ByteOrder");
  jobject native = env->CallStaticObjectMethod(
      order, env->GetStaticMethodID(order, "nativeOrder", "()Ljava/nio/ByteOrder;"));
  jclass bytes = env->FindClass("java/nio/ByteBuffer");
  buffer = env->CallObjectMethod(
      buffer, env->GetMethodID(bytes, "order", "(Ljava/nio/ByteOrder;)Ljava/nio/ByteBuffer;"), native);
  std::vector<jlong> sides(tensor.sizes().begin(), tensor.sizes().end());
  jlongArray shape = env->NewLongArray(sides.size());
  env->SetLongArrayRegion(shape, 0, sides.size(), sides.data());
  jclass type = env->FindClass(kTensor);
  jmethodID make = env->GetStaticMethodID(
      type, "nativeNewTensor",
      "(Ljava/nio/ByteBuffer;[JILcom/facebook/jni/HybridData;)Lorg/pytorch/executorch/Tensor;");
  jobject made = env->CallStaticObjectMethod(
      type, make, buffer, shape, static_cast<jint>(tensor.scalar_type()), static_cast<jobject>(nullptr));
  jclass value = env->FindClass(kValue);
  jmethodID from = env->GetStaticMethodID(
      value, "from", "(Lorg/pytorch/executorch/Tensor;)Lorg/pytorch/executorch/EValue;");
  return env->CallStaticObjectMethod(value, from, made);
}

}  // namespace

extern "C" {

JNIEXPORT void JNICALL Java_com_facebook_jni_HybridData_free(JNIEnv*, jclass, jlong pointer) {
  delete reinterpret_cast<LoadedProgram*>(pointer);
}

JNIEXPORT jobject JNICALL
Java_org_pytorch_executorch_Module_initHybrid(JNIEnv* env, jclass, jstring path, jint, jint) {
  return guarded(env, [&]() -> jobject {
    auto* program = new LoadedProgram(text(env, path));
    jclass type = env->FindClass("com/facebook/jni/HybridData");
    return env->NewObject(type, env->GetMethodID(type, "<init>", "(J)V"), reinterpret_cast<jlong>(program));
  });
}

/// One name of two releases: `getMethods` was native in the older one.
JNIEXPORT jobjectArray JNICALL Java_org_pytorch_executorch_Module_getMethodsNative(JNIEnv* env, jobject) {
  return env->NewObjectArray(1, env->FindClass("java/lang/String"), env->NewStringUTF("forward"));
}

JNIEXPORT jobjectArray JNICALL Java_org_pytorch_executorch_Module_getMethods(JNIEnv* env, jobject module) {
  return Java_org_pytorch_executorch_Module_getMethodsNative(env, module);
}

JNIEXPORT jobjectArray JNICALL Java_org_pytorch_executorch_Module_getUsedBackends(JNIEnv* env, jobject, jstring) {
  return env->NewObjectArray(0, env->FindClass("java/lang/String"), nullptr);
}

JNIEXPORT jobjectArray JNICALL
Java_org_pytorch_executorch_Module_executeNative(JNIEnv* env, jobject module, jstring, jobjectArray inputs) {
  return guarded(env, [&]() -> jobjectArray {
    Method& method = program_of(env, module).forward();
    for (jsize i = 0; i < env->GetArrayLength(inputs); ++i) {
      set_input(env, method, i, env->GetObjectArrayElement(inputs, i));
    }
    check("forward", method.execute());
    jobjectArray outputs = env->NewObjectArray(method.outputs_size(), env->FindClass(kValue), nullptr);
    for (size_t i = 0; i < method.outputs_size(); ++i) {
      env->SetObjectArrayElement(outputs, i, to_java(env, method.get_output(i).toTensor()));
    }
    return outputs;
  });
}

}  // extern "C"
