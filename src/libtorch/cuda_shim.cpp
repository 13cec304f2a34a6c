// The part of the shim that needs CUDA: a shared library of its own, which is loaded only after
// libtorch_cuda.so. As in shim.h, a function returns null or an error message.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>

namespace {

// Work that is recorded runs on a stream of its own.
struct Graph {
  explicit Graph(c10::DeviceIndex device)
      : before(c10::cuda::getCurrentCUDAStream(device)),
        stream(c10::cuda::getStreamFromPool(false, device)) {}

  c10::cuda::CUDAStream before;
  c10::cuda::CUDAStream stream;
  at::cuda::CUDAGraph graph;
};

char *copy(const char *message) {
  const size_t size = std::strlen(message) + 1;
  return static_cast<char *>(std::memcpy(std::malloc(size), message, size));
}

template <typename Body>
char *guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return copy(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return copy(error.what());
  } catch (...) {
    return copy("unknown C++ exception");
  }
}

} // namespace

extern "C" {

// A graph with nothing in it; from here on this thread's work goes to the graph's stream.
char *lenet5_graph_new(int device, Graph **graph) {
  return guarded([&] {
    c10::cuda::device_synchronize();
    *graph = new Graph(static_cast<c10::DeviceIndex>(device));
    c10::cuda::setCurrentCUDAStream((*graph)->stream);
  });
}

// From here on work is recorded, and not done.
char *lenet5_graph_begin(Graph *graph) {
  return guarded([&] {
    c10::cuda::device_synchronize();
    graph->graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
  });
}

char *lenet5_graph_end(Graph *graph) {
  return guarded([&] { graph->graph.capture_end(); });
}

// This thread's work goes to the stream of before again.
char *lenet5_graph_leave(Graph *graph) {
  return guarded([&] {
    c10::cuda::device_synchronize();
    c10::cuda::setCurrentCUDAStream(graph->before);
  });
}

char *lenet5_graph_replay(Graph *graph) {
  return guarded([&] { graph->graph.replay(); });
}

void lenet5_graph_free(Graph *graph) { delete graph; }

}
