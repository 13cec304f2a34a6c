// Turns C++ exceptions into error messages, for both parts of the shim.
#pragma once
#include <c10/util/Exception.h>

#include <cstdlib>
#include <cstring>
#include <exception>

namespace {

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
