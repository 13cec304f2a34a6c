// libtorch's header of ProcessGroupGloo includes headers of gloo, which libtorch contains but whose
// headers it does not ship. The shim only handles pointers to these classes, so declarations are
// enough. Nothing here may be defined or constructed.
#pragma once
#include <chrono>
#include <memory>

namespace gloo {
namespace transport {
class UnboundBuffer;
}

class Context {
public:
  void setTimeout(std::chrono::milliseconds timeout);
};
} // namespace gloo
