#include "threads.h"

#include <algorithm>
#include <atomic>
#include <thread>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <cerrno>
#include <memory>
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace recurra {

namespace {

std::atomic<bool> forked{false};

#if defined(__unix__) || defined(__APPLE__)
[[maybe_unused]] const int watch_forks = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  __asm__ volatile("yield");
#endif
}

}  // namespace

int threads_allowed() {
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

int threads_usable() {
#if defined(_OPENMP)
  return forked || omp_in_parallel() ? 1 : threads_allowed();
#else
  return 1;
#endif
}

void Barrier::wait() {
  const int mine = round.load(std::memory_order_acquire);
  if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
    arrived.store(0, std::memory_order_relaxed);
    round.store(mine + 1, std::memory_order_release);
    return;
  }
  // Steps take microseconds, so spin first; but a core may have been given to somebody else.
  for (int spins = 0; round.load(std::memory_order_acquire) == mine; ++spins) {
    if (spins < 4000) pause();
    else std::this_thread::yield();
  }
}

bool run_threads(int count, void (*work)(void* context, int rank), void* context) {
  if (count == 1) {
    work(context, 0);
    return true;
  }
#if defined(_OPENMP)
  bool complete = true;
#pragma omp parallel num_threads(count)
  {
    if (omp_get_num_threads() == count) work(context, omp_get_thread_num());
    else if (omp_get_thread_num() == 0) complete = false;
  }
  return complete;
#else
  return false;
#endif
}

}  // namespace recurra
