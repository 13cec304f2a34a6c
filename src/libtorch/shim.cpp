#include "shim.h"
#include "guarded.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/jit/api/module.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

namespace {

const at::Tensor &tensor(const Tensor *pointer) { return *static_cast<const at::Tensor *>(pointer); }

at::Tensor &tensor(Tensor *pointer) { return *static_cast<at::Tensor *>(pointer); }

std::vector<at::Tensor> tensors(const Tensor *const *pointers, size_t count) {
  std::vector<at::Tensor> result;
  for (size_t i = 0; i < count; ++i) {
    result.push_back(tensor(pointers[i]));
  }
  return result;
}

torch::jit::Module module(const std::string &name, std::shared_ptr<torch::jit::CompilationUnit> unit) {
  torch::jit::Module result(c10::QualifiedName("__torch__." + name), std::move(unit));
  result.register_attribute("training", c10::BoolType::get(), false);
  return result;
}

} // namespace

void lenet5_free(void *pointer) { std::free(pointer); }

char *lenet5_add_(Tensor *self, const Tensor *other, double alpha) {
  return guarded([&] { tensor(self).add_(tensor(other), alpha); });
}

char *lenet5_addcmul_(Tensor *self, const Tensor *a, const Tensor *b, double value) {
  return guarded([&] { tensor(self).addcmul_(tensor(a), tensor(b), value); });
}

char *lenet5_addcdiv_(Tensor *self, const Tensor *a, const Tensor *b, double value) {
  return guarded([&] { tensor(self).addcdiv_(tensor(a), tensor(b), value); });
}

char *lenet5_generator_state(Tensor **state) {
  return guarded([&] {
    auto generator = at::detail::getDefaultCPUGenerator();
    std::lock_guard<std::mutex> lock(generator.mutex());
    *state = new at::Tensor(generator.get_state());
  });
}

char *lenet5_set_generator_state(const Tensor *state) {
  return guarded([&] {
    auto generator = at::detail::getDefaultCPUGenerator();
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(tensor(state));
  });
}

char *lenet5_allow_tf32(int allow) {
  return guarded([&] {
    at::globalContext().setAllowTF32CuDNN(allow);
    at::globalContext().setAllowTF32CuBLAS(allow);
  });
}

char *lenet5_deterministic() {
  return guarded([&] {
    at::globalContext().setDeterministicAlgorithms(true, false);
    at::globalContext().setDeterministicCuDNN(true);
    at::globalContext().setBenchmarkCuDNN(false);
  });
}

char *lenet5_autocast(int cuda, int on, int *before) {
  return guarded([&] {
    const auto type = cuda ? at::kCUDA : at::kCPU;
    if (before) {
      *before = at::autocast::is_autocast_enabled(type);
      at::autocast::set_autocast_dtype(type, at::kBFloat16);
      at::autocast::increment_nesting();
    } else if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
    at::autocast::set_autocast_enabled(type, on);
  });
}

char *lenet5_fused_sgd_(const Tensor *const *parameters, const Tensor *const *gradients,
                        const Tensor *const *buffers, size_t count, const Tensor *rate,
                        double weight_decay, double momentum, double dampening, int nesterov,
                        int first) {
  return guarded([&] {
    at::_fused_sgd_(tensors(parameters, count), tensors(gradients, count),
                    tensors(buffers, buffers ? count : 0), weight_decay, momentum, tensor(rate),
                    dampening, nesterov, false, first);
  });
}

char *lenet5_fused_adam_(const Tensor *const *parameters, const Tensor *const *gradients,
                         const Tensor *const *first, const Tensor *const *second, size_t count,
                         const Tensor *rate, const Tensor *step, double beta1, double beta2,
                         double eps, double weight_decay, int decoupled) {
  return guarded([&] {
    const std::vector<at::Tensor> steps(count, tensor(step));
    const auto update = decoupled ? at::_ops::_fused_adamw__tensor_lr::call
                                  : at::_ops::_fused_adam__tensor_lr::call;
    update(tensors(parameters, count), tensors(gradients, count), tensors(first, count),
           tensors(second, count), {}, steps, tensor(rate), beta1, beta2, weight_decay, eps, false,
           false, {}, {});
  });
}

char *lenet5_torchscript(const char *const *names, const Tensor *const *tensors,
                         const bool *fixed, size_t count, const char *source, const char *attribute,
                         const char *text, uint8_t **data, size_t *size) {
  return guarded([&] {
    auto unit = std::make_shared<torch::jit::CompilationUnit>();
    auto root = module("LeNet5", unit);
    for (size_t i = 0; i < count; ++i) {
      const std::string name = names[i];
      const size_t dot = name.find('.');
      TORCH_CHECK(dot != std::string::npos, "expected layer.parameter, found ", name);
      const std::string layer = name.substr(0, dot);
      if (!root.hasattr(layer)) {
        root.register_module(layer, module("lenet5." + layer, unit));
      }
      auto value = tensor(tensors[i]).detach().clone().requires_grad_(!fixed[i]);
      root.attr(layer).toModule().register_parameter(name.substr(dot + 1), value, fixed[i]);
    }
    root.register_attribute(attribute, c10::StringType::get(), std::string(text));
    root.define(source);
    std::ostringstream stream;
    root.save(stream);
    const std::string bytes = stream.str();
    *size = bytes.size();
    *data = static_cast<uint8_t *>(std::malloc(bytes.size()));
    TORCH_CHECK(*data != nullptr, "out of memory");
    std::memcpy(*data, bytes.data(), bytes.size());
  });
}
