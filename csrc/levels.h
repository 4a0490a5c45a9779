// The levels of instructions that this build holds, widest first; the last one runs everywhere.
#pragma once

#include "plan.h"

#if defined(__x86_64__) && !defined(_MSC_VER) && defined(RECURRA_SANITIZE)
#define RECURRA_FOR_LEVELS(DO) DO(avx2) DO(scalar)
#elif defined(__x86_64__) && !defined(_MSC_VER)
#define RECURRA_FOR_LEVELS(DO) DO(avx512) DO(avx2) DO(scalar)
#elif defined(__aarch64__)
#define RECURRA_FOR_LEVELS(DO) DO(neon) DO(scalar)
#else
#define RECURRA_FOR_LEVELS(DO) DO(scalar)
#endif

namespace recurra {

#define RECURRA_DECLARE(name) \
  namespace name {            \
  extern const Level level;   \
  }
RECURRA_FOR_LEVELS(RECURRA_DECLARE)
#undef RECURRA_DECLARE

#define RECURRA_LIST(name) &name::level,
inline const Level* const levels[] = {RECURRA_FOR_LEVELS(RECURRA_LIST)};
#undef RECURRA_LIST

}  // namespace recurra
