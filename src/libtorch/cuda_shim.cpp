// The part of the shim that needs CUDA. It is a separate shared library, which cuda.rs loads after libtorch_cuda.so.
// As in shim.h, a function returns null, or an error message that the caller frees with lenet5_free.
#include "guarded.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

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

}
