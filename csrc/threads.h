// How many threads this process may use: the CPUs it is allowed to run on, not those of the machine.
#pragma once

#include <algorithm>
#include <thread>

#if defined(__linux__)
#include <cerrno>
#include <memory>
#include <sched.h>
#endif

namespace recurra {

// At least 1, whatever the system says. Containers and `taskset` narrow the affinity mask; counting
// the machine's CPUs there would start more threads than can run at once.
inline int threads_allowed() {
#if defined(__linux__)
  // cpu_set_t holds 1024 CPUs; a larger machine answers EINVAL until the set is large enough.
  constexpr int largest_machine = 1 << 20;
  for (int cpus = 1024; cpus <= largest_machine; cpus *= 2) {
    const auto release = [](cpu_set_t* set) { CPU_FREE(set); };
    const std::unique_ptr<cpu_set_t, decltype(release)> set(CPU_ALLOC(static_cast<size_t>(cpus)), release);
    if (!set) break;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(cpus));
    if (sched_getaffinity(0, bytes, set.get()) == 0) return std::max(1, CPU_COUNT_S(bytes, set.get()));
    if (errno != EINVAL) break;
  }
#endif
  return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

}  // namespace recurra
