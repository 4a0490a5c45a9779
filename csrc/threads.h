// Threads: how many this process may use, running work on them, and waiting for each other.
//
// The threads are those of the OpenMP runtime that torch has already loaded. A second runtime would
// bring a second pool, whose waiting threads take the cores from the first.
#pragma once

#include <atomic>

namespace recurra {

// CPUs that this process may run on: at least 1, whatever the system says.
int threads_allowed();

// Most threads that a call may use now: 1 without OpenMP, 1 inside a parallel region, and 1 in a
// forked process, where the runtime's pool is gone but the runtime does not know.
int threads_usable();

// Threads that wait for each other; each calls `wait` the same number of times.
struct alignas(64) Barrier {
  int members = 1;
  std::atomic<int> arrived{0};
  std::atomic<int> round{0};
  void wait();
};

// work(context, rank) on `count` threads at once. False, with nothing done, when the runtime would
// give fewer: members of a team wait for each other, so all of them must exist.
bool run_threads(int count, void (*work)(void* context, int rank), void* context);

}  // namespace recurra
