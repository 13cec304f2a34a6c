#include "c10d.h"
#include "guarded.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

namespace {

using StorePointer = c10::intrusive_ptr<c10d::Store>;
using GroupPointer = c10::intrusive_ptr<c10d::Backend>;

StorePointer &store_of(Store *pointer) { return *static_cast<StorePointer *>(pointer); }

GroupPointer &group_of(Group *pointer) { return *static_cast<GroupPointer *>(pointer); }

} // namespace

char *lenet5_store_open(const char *host, uint16_t port, int serve, const char *prefix,
                        int64_t timeout_ms, Store **store) {
  return guarded([&] {
    // c10d logs each error with a backtrace, which users of PyTorch turn on by this variable.
    if (!std::getenv("TORCH_CPP_LOG_LEVEL")) {
      FLAGS_caffe2_log_level = c10::GLOG_FATAL;
    }
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    StorePointer plain = c10::make_intrusive<c10d::TCPStore>(host, options);
    *store = new StorePointer(c10::make_intrusive<c10d::PrefixStore>(prefix, std::move(plain)));
  });
}

char *lenet5_store_set(Store *store, const char *key, const uint8_t *value, size_t size) {
  return guarded([&] { store_of(store)->set(key, std::vector<uint8_t>(value, value + size)); });
}

char *lenet5_store_get(Store *store, const char *key, int64_t timeout_ms, uint8_t **value,
                       size_t *size) {
  return guarded([&] {
    store_of(store)->wait({key}, std::chrono::milliseconds(timeout_ms));
    const auto found = store_of(store)->get(key);
    *value = static_cast<uint8_t *>(std::malloc(found.size() + 1));
    std::memcpy(*value, found.data(), found.size());
    *size = found.size();
  });
}

char *lenet5_store_has(Store *store, const char *key, int *has) {
  return guarded([&] { *has = store_of(store)->check({key}); });
}

void lenet5_store_close(Store *store) { delete static_cast<StorePointer *>(store); }

char *lenet5_gloo_open(Store *store, const char *prefix, int rank, int size, int64_t timeout_ms,
                       const char *interface, Group **group) {
  return guarded([&] {
    using Gloo = c10d::ProcessGroupGloo;
    auto options = Gloo::Options::create(std::chrono::milliseconds(timeout_ms));
    options->devices.push_back(interface ? Gloo::createDeviceForInterface(interface)
                                         : Gloo::createDefaultDevice());
    StorePointer own = c10::make_intrusive<c10d::PrefixStore>(prefix, store_of(store));
    *group = new GroupPointer(c10::make_intrusive<Gloo>(own, rank, size, std::move(options)));
  });
}

char *lenet5_group_sum_(Group *group, Tensor *tensor) {
  return guarded([&] {
    std::vector<at::Tensor> tensors{*static_cast<at::Tensor *>(tensor)};
    group_of(group)->allreduce(tensors)->wait();
  });
}

void lenet5_group_close(Group *group) {
  // Operations that wait for a lost process end with an error.
  std::free(guarded([&] { group_of(group)->abort(); }));
  delete static_cast<GroupPointer *>(group);
}
