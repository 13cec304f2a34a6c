// Runs the CUDA kernels of src/engine/cuda/kernels.cu (KERNELS) on the CPU, block by block. Each thread of a block has
// its own context. Between two barriers the threads run one after the other, in random order, so that a missing
// barrier makes results wrong. Shared memory starts as NaN, so that reads of values never written make them NaN.
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <vector>

#include <ucontext.h>

#define __global__
#define __device__
#define __shared__
#define __launch_bounds__(...)

using std::min;

struct alignas(16) float4 {
  float x, y, z, w;
};

struct Index {
  unsigned x;
};

static Index threadIdx, blockIdx;

enum class State { Ready, AtWarp, AtBlock, Done };

struct Thread {
  State state;
  ucontext_t start;
  jmp_buf at;
  bool started;
  // Its values in the last two shuffles, so that the other threads can still read the previous one.
  float shown[2];
  int turn;
};

static constexpr int WARP_SIZE = 32, STACK = 1 << 16, MOST_THREADS = 1024, SHARED = 227 * 1024;
static Thread threads[MOST_THREADS];
static jmp_buf scheduler;
static float4 memory[SHARED / sizeof(float4)];

static void wait(State state) {
  Thread &self = threads[threadIdx.x];
  self.state = state;
  if (_setjmp(self.at) == 0) _longjmp(scheduler, 1);
}

static void __syncthreads() { wait(State::AtBlock); }
static void __syncwarp() { wait(State::AtWarp); }

static float __shfl_xor_sync(unsigned, float value, int other) {
  const unsigned self = threadIdx.x;
  const int turn = threads[self].turn ^= 1;
  threads[self].shown[turn] = value;
  __syncwarp();
  return threads[self ^ other].shown[turn];
}

static bool __any_sync(unsigned mask, bool predicate) {
  for (int other = 1; other < WARP_SIZE; other *= 2) {
    predicate |= __shfl_xor_sync(mask, predicate ? 1.0f : 0.0f, other) != 0.0f;
  }
  return predicate;
}

#include KERNELS

static const Arguments *arguments;
static void (*kernel)(const Arguments);

static void run() {
  kernel(*arguments);
  threads[threadIdx.x].state = State::Done;
  _longjmp(scheduler, 1);
}

static unsigned draw() {
  static unsigned long long state = 1;
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<unsigned>(state >> 33);
}

// Makes threads first..end ready if all of them that have not ended wait in `state`. Returns whether it did so.
static bool release(State state, int first, int end) {
  bool any = false;
  for (int i = first; i < end; ++i) {
    if (threads[i].state != state && threads[i].state != State::Done) return false;
    any |= threads[i].state == state;
  }
  for (int i = first; any && i < end; ++i) {
    if (threads[i].state == state) threads[i].state = State::Ready;
  }
  return any;
}

// Runs a thread until it waits or ends.
__attribute__((noinline)) static void resume(int i) {
  threadIdx.x = static_cast<unsigned>(i);
  if (_setjmp(scheduler) != 0) return;
  if (threads[i].started) _longjmp(threads[i].at, 1);
  threads[i].started = true;
  setcontext(&threads[i].start);
}

__attribute__((noinline)) static void prepare(int i, char *stack) {
  Thread &thread = threads[i];
  thread.state = State::Ready;
  thread.started = false;
  getcontext(&thread.start);
  thread.start.uc_stack.ss_sp = stack;
  thread.start.uc_stack.ss_size = STACK;
  thread.start.uc_link = nullptr;
  makecontext(&thread.start, run, 0);
}

static void run_block(int count, char *stacks) {
  for (int i = 0; i < count; ++i) prepare(i, stacks + static_cast<size_t>(i) * STACK);
  std::vector<int> ready;
  while (true) {
    ready.clear();
    for (int i = 0; i < count; ++i) {
      if (threads[i].state == State::Ready) ready.push_back(i);
    }
    for (size_t left = ready.size(); left > 0; --left) {
      std::swap(ready[draw() % left], ready[left - 1]);
      resume(ready[left - 1]);
    }
    bool any = release(State::AtBlock, 0, count), done = true;
    for (int first = 0; first < count; first += WARP_SIZE) {
      any |= release(State::AtWarp, first, first + WARP_SIZE);
    }
    for (int i = 0; i < count; ++i) done &= threads[i].state == State::Done;
    if (done) return;
    if (!any) {
      std::fprintf(stderr, "block %u: threads wait for others that do not come\n", blockIdx.x);
      std::abort();
    }
  }
}

// Kernel 0 is `gradient`, 1 is `update`, 2 is `draw`.
extern "C" void launch(int which, unsigned blocks, unsigned count, unsigned bytes, const Arguments *given) {
  void (*const kernels[])(const Arguments) = {gradient, update, draw};
  kernel = kernels[which];
  arguments = given;
  if (count > MOST_THREADS || bytes > SHARED || (which == 0 && bytes != sizeof(Shared))) {
    std::fprintf(stderr, "kernel %d: %u threads, %u bytes of shared memory\n", which, count, bytes);
    std::abort();
  }
  static std::unique_ptr<char[]> stacks(new char[static_cast<size_t>(MOST_THREADS) * STACK]);
  float *numbers = reinterpret_cast<float *>(memory);
  const size_t beyond = std::min<size_t>(bytes + 4096, SHARED) / sizeof(float);
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    for (size_t i = 0; i < beyond; ++i) numbers[i] = std::numeric_limits<float>::quiet_NaN();
    run_block(static_cast<int>(count), stacks.get());
    for (size_t i = bytes / sizeof(float); i < beyond; ++i) {
      if (numbers[i] == numbers[i]) {
        std::fprintf(stderr, "block %u: written beyond its shared memory\n", blockIdx.x);
        std::abort();
      }
    }
  }
}
