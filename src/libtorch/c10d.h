// PyTorch's c10d: a store, and a group of processes that add up tensors. Each function returns null,
// or an error message that the caller frees with lenet5_free. NCCL's groups are in cuda_shim.cpp.
#pragma once
#include "shim.h"

extern "C" {
typedef void Store;
typedef void Group;

// Opens a TCPStore as a client, and with `serve` as the server too. `prefix` comes before all keys.
char *lenet5_store_open(const char *host, uint16_t port, int serve, const char *prefix,
                        int64_t timeout_ms, Store **store);
char *lenet5_store_set(Store *store, const char *key, const uint8_t *value, size_t size);
// Waits for a key, and returns its value. The caller frees `*value` with lenet5_free.
char *lenet5_store_get(Store *store, const char *key, int64_t timeout_ms, uint8_t **value,
                       size_t *size);
char *lenet5_store_has(Store *store, const char *key, int *has);
void lenet5_store_close(Store *store);

// Connects the processes of a group over gloo, by keys of the store that start with `prefix`.
// `interface` may be null: the address of the machine's host name is used then.
char *lenet5_gloo_open(Store *store, const char *prefix, int rank, int size, int64_t timeout_ms, const char *interface,
                       Group **group);
// Replaces a tensor by the sum over all processes. It is on the CPU for gloo, on the GPU for NCCL.
char *lenet5_group_sum_(Group *group, Tensor *tensor);
void lenet5_group_close(Group *group);
}
