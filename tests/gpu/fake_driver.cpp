// The functions of the CUDA driver and of NVRTC that this project calls, for a GPU that is simulated in host memory.
// NVRTC compiles for the CPU, with cuda_on_cpu.cpp (ON_CPU), and a launch runs the kernel there at once.
#include <dlfcn.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_FOUND = 500 };
constexpr unsigned SHARED = 227 * 1024, SHARED_UNASKED = 48 * 1024;

using Launch = void(int, unsigned, unsigned, unsigned, const void *);

struct Module {
  Launch *launch;
};

struct Function {
  Module *module;
  int which;
  unsigned shared;
};

struct Program {
  std::string source, code, log;
};

using Event = std::chrono::steady_clock::time_point;

} // namespace

extern "C" {

int cuInit(unsigned) { return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal == 0 ? SUCCESS : INVALID_VALUE;
}
int cuDevicePrimaryCtxRetain(void **context, int) {
  static int only;
  *context = &only;
  return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxGetCurrent(void **context) { return cuDevicePrimaryCtxRetain(context, 0); }
int cuCtxSetCurrent(void *) { return SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
  switch (attribute) {
    case 16: *value = 132; break;     // multiprocessors
    case 75: *value = 9; break;       // compute capability
    case 76: *value = 0; break;
    case 97: *value = SHARED; break;  // the most shared memory that a block can request
    case 115: *value = 0; break;      // memory pools
    default: return INVALID_VALUE;
  }
  return SUCCESS;
}

int cuModuleLoadData(Module **module, const void *image) {
  void *library = dlopen(static_cast<const char *>(image), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return INVALID_VALUE;
  *module = new Module{reinterpret_cast<Launch *>(dlsym(library, "launch"))};
  return SUCCESS;
}
int cuModuleUnload(Module *module) {
  delete module;
  return SUCCESS;
}
int cuModuleGetFunction(Function **function, Module *module, const char *name) {
  const char *const names[] = {"gradient", "update", "draw"};
  for (int which = 0; which < 3; ++which) {
    if (std::strcmp(name, names[which]) != 0) continue;
    *function = new Function{module, which, SHARED_UNASKED};
    return SUCCESS;
  }
  return NOT_FOUND;
}
int cuFuncSetAttribute(Function *function, int attribute, int value) {
  if (attribute != 8 || value > static_cast<int>(SHARED)) return INVALID_VALUE;
  function->shared = value;
  return SUCCESS;
}
int cuLaunchKernel(Function *function, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned,
                   unsigned shared, void *stream, void **arguments, void **) {
  if (stream != nullptr || blocks == 0 || threads > 1024 || shared > function->shared) return INVALID_VALUE;
  function->module->launch(function->which, blocks, threads, shared, arguments[0]);
  return SUCCESS;
}

int cuEventCreate(Event **event, unsigned) {
  *event = new Event;
  return SUCCESS;
}
int cuEventRecord(Event *event, void *) {
  *event = std::chrono::steady_clock::now();
  return SUCCESS;
}
int cuEventSynchronize(Event *) { return SUCCESS; }
int cuEventElapsedTime(float *milliseconds, Event *start, Event *end) {
  *milliseconds = std::chrono::duration<float, std::milli>(*end - *start).count();
  return SUCCESS;
}
int cuEventElapsedTime_v2(float *milliseconds, Event *start, Event *end) {
  return cuEventElapsedTime(milliseconds, start, end);
}
int cuEventDestroy_v2(Event *event) {
  delete event;
  return SUCCESS;
}
int cuGetErrorName(int, const char **text) {
  *text = "refused";
  return SUCCESS;
}
int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }

int nvrtcVersion(int *major, int *minor) {
  *major = 13;
  *minor = 0;
  return SUCCESS;
}
int nvrtcCreateProgram(Program **program, const char *source, const char *, int, const char *const *,
                       const char *const *) {
  *program = new Program{source, "", ""};
  return SUCCESS;
}
int nvrtcCompileProgram(Program *program, int count, const char *const *options) {
  const char *temporary = std::getenv("TMPDIR");
  std::string folder = std::string(temporary != nullptr ? temporary : "/tmp") + "/kernels-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return INVALID_VALUE;
  const std::string source = folder + "/kernels.cu";
  program->code = folder + "/kernels.so";
  std::FILE *file = std::fopen(source.c_str(), "w");
  std::fwrite(program->source.data(), 1, program->source.size(), file);
  std::fclose(file);
  std::string command = std::getenv("CXX") != nullptr ? std::getenv("CXX") : "c++";
  command += " -O2 -w -fno-strict-aliasing -shared -fPIC -DKERNELS='\"" + source + "\"'";
  bool hopper = false;
  for (int i = 0; i < count; ++i) {
    hopper |= std::strcmp(options[i], "--gpu-architecture=sm_90") == 0;
    if (std::strncmp(options[i], "-D", 2) == 0) command += std::string(" ") + options[i];
  }
  command += " -std=c++17 " ON_CPU " -o " + program->code;
  program->log = "compiled for the CPU";
  return hopper && std::system(command.c_str()) == 0 ? SUCCESS : INVALID_VALUE;
}
int nvrtcGetCUBINSize(Program *program, size_t *size) {
  *size = program->code.size() + 1;
  return SUCCESS;
}
int nvrtcGetCUBIN(Program *program, char *code) {
  std::memcpy(code, program->code.c_str(), program->code.size() + 1);
  return SUCCESS;
}
int nvrtcGetProgramLogSize(Program *program, size_t *size) {
  *size = program->log.size() + 1;
  return SUCCESS;
}
int nvrtcGetProgramLog(Program *program, char *log) {
  std::memcpy(log, program->log.c_str(), program->log.size() + 1);
  return SUCCESS;
}
int nvrtcDestroyProgram(Program **program) {
  delete *program;
  return SUCCESS;
}
}
