// A libtorch_cuda.so and a libc10_cuda.so with one GPU, which is simulated in host memory. libtorch's CPU kernels run
// its operations, after a check that all tensors are on one device, as on a real GPU. A graph runs and records the
// operations of a capture, undoes their changes, and runs them again with each replay. During a capture it refuses to
// wait for the GPU and to copy between host and GPU.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/library.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <vector>

namespace {

using c10::Device;
using c10::Stream;

Device gpu() { return Device(c10::DeviceType::CUDA, 0); }

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }
  Device exchangeDevice(Device) const override { return gpu(); }
  Device getDevice() const override { return gpu(); }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return Stream(Stream::DEFAULT, gpu()); }
  Stream exchangeStream(Stream) const override { return Stream(Stream::DEFAULT, gpu()); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  void deviceSynchronize(c10::DeviceIndex) const override {}
  const at::Generator &getDefaultGenerator(c10::DeviceIndex) const override {
    static const at::Generator generator = at::detail::createCPUGenerator();
    return generator;
  }
};

// Returns a tensor for the same memory, with another device.
at::Tensor as_on(const at::Tensor &tensor, Device device) {
  at::Tensor kept = tensor;
  const auto options = tensor.options().device(device);
  return at::for_blob(tensor.data_ptr(), tensor.sizes())
      .strides(tensor.strides())
      .deleter([kept](void *) mutable { kept.reset(); })
      .options(options)
      .target_device(device)
      .make_tensor();
}

at::Tensor on_host(const at::Tensor &tensor) { return tensor.is_cuda() ? as_on(tensor, at::kCPU) : tensor; }

// The recorded operations of a graph, in order.
using Work = std::vector<std::function<void()>>;

// The graph of the current capture. An operation inside another one is not recorded.
struct {
  Work *work = nullptr;
  bool inside = false;
  // For each storage that was changed: a tensor of all its bytes, and a copy from before.
  std::map<const void *, std::pair<at::Tensor, at::Tensor>> before;

  bool records() const { return work != nullptr && !inside; }

  void refuse(const char *what) const {
    TORCH_CHECK(!records(), "operation not permitted when stream is capturing (", what, ")");
  }

  void will_change(const at::Tensor &tensor) {
    const void *data = tensor.storage().data();
    if (data == nullptr || before.count(data) > 0) return;
    const at::Tensor all = at::for_blob(const_cast<void *>(data), {static_cast<int64_t>(tensor.storage().nbytes())})
                               .deleter([tensor](void *) {})
                               .options(at::kByte)
                               .make_tensor();
    before.emplace(data, std::make_pair(all, all.clone()));
  }
} recorder;

// Marks operations as inside another one while it exists.
struct Inside {
  bool outer = recorder.inside;
  Inside() { recorder.inside = true; }
  ~Inside() { recorder.inside = outer; }
};

// Returns copies of the values whose shapes in-place operations like `unsqueeze_` do not change.
std::vector<c10::IValue> as_they_are(c10::ArrayRef<c10::IValue> values) {
  std::vector<c10::IValue> kept(values.begin(), values.end());
  for (c10::IValue &value : kept) {
    if (value.isTensor() && value.toTensor().defined()) value = value.toTensor().detach();
    if (value.isTensorList()) {
      std::vector<at::Tensor> tensors = value.toTensorVector();
      for (at::Tensor &tensor : tensors) tensor = tensor.detach();
      value = tensors;
    }
  }
  return kept;
}

void fallback(const c10::OperatorHandle &op, torch::jit::Stack *stack) {
  const auto &schema = op.schema();
  const auto arguments = torch::jit::last(*stack, schema.arguments().size());
  bool on_gpu = false, on_cpu = false;
  const auto see = [&](const at::Tensor &tensor) {
    if (!tensor.defined()) return;
    on_gpu |= tensor.is_cuda();
    on_cpu |= tensor.is_cpu() && tensor.dim() > 0;
  };
  for (const auto &argument : arguments) {
    if (argument.isTensor()) see(argument.toTensor());
    if (argument.isTensorList()) {
      for (const at::Tensor &tensor : argument.toTensorVector()) see(tensor);
    }
  }
  // Indices may be on the CPU.
  const bool indices = schema.name() == "aten::index" || schema.name() == "aten::_index_put_impl_";
  TORCH_CHECK(!(on_gpu && on_cpu) || indices, "Expected all tensors to be on the same device, but found at least "
              "two devices, cuda:0 and cpu! (", schema.name(), ")");
  const bool records = recorder.records();
  const auto given = records ? as_they_are(arguments) : std::vector<c10::IValue>();
  if (records) {
    for (size_t i = 0; i < given.size(); ++i) {
      const auto *alias = schema.arguments()[i].alias_info();
      if (alias == nullptr || !alias->isWrite()) continue;
      if (given[i].isTensor()) recorder.will_change(given[i].toTensor());
      if (given[i].isTensorList()) {
        for (const at::Tensor &tensor : given[i].toTensorVector()) recorder.will_change(tensor);
      }
    }
  }
  const Inside inside;
  at::native::cpu_fallback(op, stack);
  if (!records) return;
  const auto made = as_they_are(torch::jit::last(*stack, schema.returns().size()));
  recorder.work->push_back([op, given, made] {
    torch::jit::Stack again(given);
    at::native::cpu_fallback(op, &again);
    for (size_t i = 0; i < made.size(); ++i) {
      if (!made[i].isTensor() || !made[i].toTensor().defined()) continue;
      const at::Tensor to = made[i].toTensor(), from = again[i].toTensor();
      if (to.data_ptr() != from.data_ptr()) on_host(to).copy_(on_host(from));
    }
  });
}

at::Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> type, std::optional<at::Layout>,
                 std::optional<Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const auto options = at::TensorOptions().dtype(type).device(at::kCPU);
  return as_on(at::empty(C10_AS_INTARRAYREF_SLOW(size), options, format), gpu());
}

at::Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> type,
                         std::optional<at::Layout>, std::optional<Device>, std::optional<bool>) {
  const auto options = at::TensorOptions().dtype(type).device(at::kCPU);
  const auto tensor = at::empty_strided(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), options);
  return as_on(tensor, gpu());
}

at::Tensor &copy_(at::Tensor &self, const at::Tensor &source, bool) {
  if (!self.is_cuda() || !source.is_cuda()) recorder.refuse("copy between host and GPU");
  const at::Tensor to = self.detach(), from = source.detach();
  const auto copy = [to, from] { on_host(to).copy_(on_host(from)); };
  if (recorder.records()) {
    recorder.will_change(self);
    recorder.work->push_back(copy);
  }
  copy();
  return self;
}

at::Tensor copy_from(const at::Tensor &self, const at::Tensor &to, bool) {
  on_host(to).copy_(on_host(self));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor &self, const at::Tensor &to) {
  if (to.sizes() != self.sizes()) to.resize_(self.sizes());
  return copy_from(self, to, false);
}

at::Scalar item(const at::Tensor &self) {
  recorder.refuse("a number read by the host");
  return on_host(self).item();
}

const at::Tensor &resize_(const at::Tensor &self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  // Only cpu_fallback calls this, with tensors that are empty or already have the size.
  const auto wanted = C10_AS_INTARRAYREF_SLOW(size);
  if (self.sizes() == wanted) return self;
  const at::Tensor other = at::empty(wanted, self.options());
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(other.storage());
  self.unsafeGetTensorImpl()->set_sizes_contiguous(wanted);
  return self;
}

thread_local int64_t current_stream = 0;

} // namespace

// These have the names and signatures of libtorch's own.
enum cudaStreamCaptureMode : int {};

namespace c10::cuda {

struct CUDAStream {
  Stream stream;
  void synchronize() const;
};

void CUDAStream::synchronize() const { recorder.refuse("waiting for a stream"); }
CUDAStream getStreamFromPool(bool, DeviceIndex) { return {Stream(Stream::UNSAFE, gpu(), 1)}; }
CUDAStream getCurrentCUDAStream(DeviceIndex) { return {Stream(Stream::UNSAFE, gpu(), current_stream)}; }
DeviceIndex current_device() { return 0; }
void set_device(DeviceIndex, bool) {}
void setCurrentCUDAStream(CUDAStream stream) { current_stream = stream.stream.id(); }

} // namespace c10::cuda

namespace at::cuda {

// Its caller reserves the size of libtorch's, which is larger.
struct CUDAGraph {
  Work *work;
  CUDAGraph(bool);
  ~CUDAGraph();
  void capture_begin(std::pair<unsigned long long, unsigned long long>, cudaStreamCaptureMode);
  void capture_end();
  void replay();
};

CUDAGraph::CUDAGraph(bool) : work(new Work) {}
CUDAGraph::~CUDAGraph() { delete work; }

void CUDAGraph::capture_begin(std::pair<unsigned long long, unsigned long long>, cudaStreamCaptureMode) {
  TORCH_CHECK(current_stream != 0, "CUDA graphs must be captured on a non-default stream.");
  TORCH_CHECK(recorder.work == nullptr, "two captures at once");
  recorder.work = work;
}

void CUDAGraph::capture_end() {
  recorder.work = nullptr;
  for (auto &entry : recorder.before) entry.second.first.copy_(entry.second.second);
  recorder.before.clear();
}

void CUDAGraph::replay() {
  for (const auto &step : *work) step();
}

// The start of the struct that CUDA returns.
struct Properties {
  char name[256];
  char uuid[16];
};

// Each process has a GPU of its own.
Properties *getDeviceProperties(c10::DeviceIndex) {
  static Properties properties{};
  const auto process = getpid();
  std::memcpy(properties.uuid, &process, sizeof process);
  return &properties;
}

} // namespace at::cuda

namespace c10d {

// NCCL for simulated GPUs, whose memory gloo can read. Its caller reserves the size of libtorch's, which is larger.
struct ProcessGroupNCCL : Backend {
  struct Options : Backend::Options {
    explicit Options(bool);
    // The caller's destructor expects libtorch's fields here; zeros need no destruction.
    char fields[104] = {};
  };

  ProcessGroupNCCL(c10::intrusive_ptr<Store>, int rank, int size, c10::intrusive_ptr<Options>);

  c10::intrusive_ptr<Work> allreduce(std::vector<at::Tensor> &tensors, const AllreduceOptions &options) override {
    TORCH_CHECK(tensors.at(0).device() == gpu(), "NCCL adds up tensors on a GPU only");
    std::vector<at::Tensor> on_cpu{as_on(tensors[0], c10::kCPU)};
    return gloo->allreduce(on_cpu, options);
  }

  void abort() override { gloo->abort(); }

  c10::intrusive_ptr<ProcessGroupGloo> gloo;
};

ProcessGroupNCCL::Options::Options(bool) : Backend::Options("nccl", kBackendDefaultTimeout) {}

ProcessGroupNCCL::ProcessGroupNCCL(c10::intrusive_ptr<Store> store, int rank, int size,
                                   c10::intrusive_ptr<Options> options)
    : Backend(rank, size) {
  auto own = ProcessGroupGloo::Options::create(options->timeout);
  own->devices.push_back(ProcessGroupGloo::createDefaultDevice());
  gloo = c10::make_intrusive<ProcessGroupGloo>(std::move(store), rank, size, std::move(own));
}

} // namespace c10d

C10_REGISTER_GUARD_IMPL(CUDA, Guard)

namespace at {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, Hooks)
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
  m.impl("copy_", TORCH_FN(copy_));
  m.impl("_copy_from", TORCH_FN(copy_from));
  m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  m.impl("_local_scalar_dense", TORCH_FN(item));
  m.impl("resize_", TORCH_FN(resize_));
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(at::native::set_storage_cpu_));
}
