// The functions of libtorch that tch 0.24 lacks. Each returns null, or an error message that the caller frees with
// lenet5_free. A `Tensor` is a torch::Tensor, as in torch-sys.
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" {
typedef void Tensor;

void lenet5_free(void *pointer);

// In tch these three functions have no factor. A separate multiplication would round twice.
char *lenet5_add_(Tensor *self, const Tensor *other, double alpha);
char *lenet5_addcmul_(Tensor *self, const Tensor *a, const Tensor *b, double value);
char *lenet5_addcdiv_(Tensor *self, const Tensor *a, const Tensor *b, double value);

// torch.get_rng_state() and torch.set_rng_state(): the state of the default CPU generator.
char *lenet5_generator_state(Tensor **state);
char *lenet5_set_generator_state(const Tensor *state);

// Sets torch.backends.{cudnn,cuda.matmul}.allow_tf32: TensorFloat-32 in cuDNN and cuBLAS.
char *lenet5_allow_tf32(int allow);

// torch.use_deterministic_algorithms(True): operations without a deterministic kernel fail.
char *lenet5_deterministic();

// Enters torch.autocast(device, torch.bfloat16) on this thread, and stores the state before it in `before`.
// If `before` is null, it exits instead, and `on` is the state to restore.
char *lenet5_autocast(int cuda, int on, int *before);

// A step of an optimizer, in one kernel for all parameters. `rate` and `step`, which change from step to step, are
// float32 tensors. Without momentum, `buffers` may be null.
char *lenet5_fused_sgd_(const Tensor *const *parameters, const Tensor *const *gradients,
                        const Tensor *const *buffers, size_t count, const Tensor *rate,
                        double weight_decay, double momentum, double dampening, int nesterov,
                        int first);
char *lenet5_fused_adam_(const Tensor *const *parameters, const Tensor *const *gradients,
                         const Tensor *const *first, const Tensor *const *second, size_t count,
                         const Tensor *rate, const Tensor *step, double beta1, double beta2,
                         double eps, double weight_decay, int decoupled);

// Writes a TorchScript archive with a parameter for each dotted name (a buffer if it is `fixed`), a method from
// `source`, and an attribute that holds `text`. Unlike an extra file, the attribute is kept when Python saves the
// module again. The caller frees `*data` with lenet5_free.
char *lenet5_torchscript(const char *const *names, const Tensor *const *tensors,
                         const bool *fixed, size_t count, const char *source, const char *attribute,
                         const char *text, uint8_t **data, size_t *size);
}
