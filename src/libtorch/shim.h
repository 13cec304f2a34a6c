// What tch 0.24 lacks of libtorch. Every function returns null, or an error message that the
// caller frees with lenet5_free. `Tensor` is a torch::Tensor as torch-sys holds it.
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" {
typedef void Tensor;

void lenet5_free(void *pointer);

// tch's add_, addcmul_ and addcdiv_ have no factor; a product beforehand would round twice.
char *lenet5_add_(Tensor *self, const Tensor *other, double alpha);
char *lenet5_addcmul_(Tensor *self, const Tensor *a, const Tensor *b, double value);
char *lenet5_addcdiv_(Tensor *self, const Tensor *a, const Tensor *b, double value);

// State of the default CPU generator, as torch.get_rng_state() and torch.set_rng_state() have it.
char *lenet5_generator_state(Tensor **state);
char *lenet5_set_generator_state(const Tensor *state);

// TensorFloat-32 in cuDNN and cuBLAS: torch.backends.{cudnn,cuda.matmul}.allow_tf32.
char *lenet5_allow_tf32(int allow);

// Deterministic kernels, or an error where there is none: torch.use_deterministic_algorithms.
char *lenet5_deterministic();

// Convolutions and linear layers of the calling thread compute in bfloat16 from here on, or no longer: the
// entry and the exit of torch.autocast(device, torch.bfloat16).
char *lenet5_autocast(int cuda, int on, int *before);

// Optimizers in one kernel for all parameters, what changes from step to step in tensors: `rate` and `step` are
// float32. Without momentum `buffers` may be null.
char *lenet5_fused_sgd_(const Tensor *const *parameters, const Tensor *const *gradients,
                        const Tensor *const *buffers, size_t count, const Tensor *rate,
                        double weight_decay, double momentum, double dampening, int nesterov,
                        int first);
char *lenet5_fused_adam_(const Tensor *const *parameters, const Tensor *const *gradients,
                         const Tensor *const *first, const Tensor *const *second, size_t count,
                         const Tensor *rate, const Tensor *step, double beta1, double beta2,
                         double eps, double weight_decay, int decoupled);

// A TorchScript archive with one parameter per dotted name, or a buffer where it is fixed, a method from `source`, and an attribute
// that holds `text`: unlike an extra file it stays when Python saves the module again.
// `*data` is freed with lenet5_free.
char *lenet5_torchscript(const char *const *names, const Tensor *const *tensors,
                         const bool *fixed, size_t count, const char *source, const char *attribute,
                         const char *text, uint8_t **data, size_t *size);
}
