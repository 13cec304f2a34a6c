// The part of the shim that needs CUDA. It is a separate shared library, which cuda.rs loads after libtorch_cuda.so.
// As in shim.h, a function returns null, or an error message that the caller frees with lenet5_free.
#include "c10d.h"
#include "guarded.h"

#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <memory>

namespace {

// A stream whose work can be captured, unlike that of the default stream.
struct Stream {
  explicit Stream(c10::DeviceIndex device)
      : before(c10::cuda::getCurrentCUDAStream(device)),
        own(c10::cuda::getStreamFromPool(false, device)) {}

  c10::DeviceIndex device_before = 0;
  c10::cuda::CUDAStream before;
  c10::cuda::CUDAStream own;
};

} // namespace

extern "C" {

char *lenet5_stream_new(int device, Stream **stream) {
  return guarded([&] { *stream = new Stream(static_cast<c10::DeviceIndex>(device)); });
}

void lenet5_stream_free(Stream *stream) { delete stream; }

// Waits for this thread's current stream, then makes `stream` and its GPU the current ones.
char *lenet5_stream_enter(Stream *stream) {
  return guarded([&] {
    stream->device_before = c10::cuda::current_device();
    c10::cuda::set_device(stream->own.device_index());
    stream->before = c10::cuda::getCurrentCUDAStream();
    stream->before.synchronize();
    c10::cuda::setCurrentCUDAStream(stream->own);
  });
}

// Makes the previous stream and GPU current again, and waits for `stream`.
char *lenet5_stream_leave(Stream *stream) {
  return guarded([&] {
    c10::cuda::setCurrentCUDAStream(stream->before);
    c10::cuda::set_device(stream->device_before);
    stream->own.synchronize();
  });
}

// Starts to capture this thread's work instead of running it. Needs lenet5_stream_enter first.
char *lenet5_graph_begin(at::cuda::CUDAGraph **graph) {
  return guarded([&] {
    c10::cuda::getCurrentCUDAStream().synchronize();
    auto recorded = std::make_unique<at::cuda::CUDAGraph>();
    recorded->capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    *graph = recorded.release();
  });
}

char *lenet5_graph_end(at::cuda::CUDAGraph *graph) {
  return guarded([&] { graph->capture_end(); });
}

char *lenet5_graph_replay(at::cuda::CUDAGraph *graph) {
  return guarded([&] { graph->replay(); });
}

void lenet5_graph_free(at::cuda::CUDAGraph *graph) { delete graph; }

// Writes the 16 bytes that no other GPU has.
char *lenet5_gpu_uuid(int device, uint8_t *uuid) {
  return guarded([&] {
    const auto properties = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(device));
    std::memcpy(uuid, &properties->uuid, sizeof properties->uuid);
  });
}

// Connects the processes of a group over NCCL, by keys of the store that start with `prefix`. Each
// process needs a GPU of its own.
char *lenet5_nccl_open(Store *store, const char *prefix, int rank, int size, int64_t timeout_ms,
                       int device, Group **group) {
  return guarded([&] {
#ifdef USE_C10D_NCCL
    // A sum that takes too long is an error. By default NCCL's watchdog would end the process.
    setenv("TORCH_NCCL_BLOCKING_WAIT", "1", 0);
    setenv("TORCH_NCCL_ENABLE_MONITORING", "0", 0);
    using Nccl = c10d::ProcessGroupNCCL;
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
    auto options = Nccl::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto &shared = *static_cast<c10::intrusive_ptr<c10d::Store> *>(store);
    auto own = c10::make_intrusive<c10d::PrefixStore>(prefix, shared);
    *group = new c10::intrusive_ptr<c10d::Backend>(
        c10::make_intrusive<Nccl>(own, rank, size, std::move(options)));
#else
    C10_THROW_ERROR(Error, "this program was built without NCCL's header");
#endif
  });
}

}
