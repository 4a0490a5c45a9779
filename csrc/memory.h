// Aligned memory of the core's own. Large pieces ask for huge pages: packed weights are read from end to
// end at every step, and with small pages the processor walks its page tables more than it reads.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "calls.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace recurra {

struct FreeBytes {
  std::align_val_t alignment{64};
  void operator()(char* data) const { ::operator delete(data, alignment); }
};

using Bytes = std::unique_ptr<char, FreeBytes>;

// Not cleared. Throws std::bad_alloc.
inline Bytes allocate(index bytes) {
  constexpr index page = index{1} << 21;
  const bool large = bytes >= 2 * page;
  const std::align_val_t alignment{static_cast<size_t>(large ? page : 64)};
  const index whole = large ? (bytes + page - 1) / page * page : bytes;
  Bytes memory(static_cast<char*>(::operator new(static_cast<size_t>(whole), alignment)), FreeBytes{alignment});
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // Advice only: without huge pages everything is as it was.
  if (large) madvise(memory.get(), static_cast<size_t>(whole), MADV_HUGEPAGE);
#endif
  return memory;
}

}  // namespace recurra
