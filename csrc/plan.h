// How the rows of a batch are shared out: slices of rows that run side by side, each carried by a
// team of threads that splits the panels of every product. Slices never wait for each other; a team
// waits after every product, so teams are for batches too small to be sliced further.
#pragma once

#include "calls.h"
#include "threads.h"

namespace recurra {

struct Plan {
  int slices = 1;
  int team = 1;
  int threads = 1;  // min(directions * slices, threads allowed) * team
  // Rows of the batch, slice after slice, each slice's longest first; and how long each is.
  const index* order = nullptr;
  const index* length = nullptr;
  const index* begin = nullptr;  // (slices + 1): where each slice begins in `order`
  Barrier* everybody = nullptr;
  Barrier* teams = nullptr;  // one for each team at work
};

struct Range {
  index begin;
  index end;
};

// A thread's place in its team.
struct Team {
  int rank = 0;
  int size = 1;
  Barrier* barrier = nullptr;

  void wait() const {
    if (size > 1) barrier->wait();
  }
  Range share(index count) const { return {count * rank / size, count * (rank + 1) / size}; }
};

struct StreamMemory {
  index work;
  index full;
};

// One level of instructions. `prepare` lays out `work`, 64-byte aligned memory of the size that it
// returns for a null pointer; then every thread of the plan calls `forward` or `backward`.
struct Level {
  const char* name;
  int vector_bits;
  bool (*supported)();
  index (*saved_size)(const Layer&);  // elements for each row and step
  index (*prepare)(const Layer&, const Plan&, bool backward, char* work);
  void (*forward)(const Layer&, const Plan&, const char* work, int rank);
  void (*backward)(const Layer&, const Plan&, const char* work, int rank);
  // Like `prepare`, and packs the weights; `full` is needed until it returns.
  StreamMemory (*prepare_stream)(const Layer&, const Plan&, Stored, char* work, char* full);
  void (*stream)(const Layer&, const Plan&, Stored, const char* work, int rank);
  // Bytes of scratch for each thread, and what thread `rank` of `threads` does.
  index (*linear_scratch)(const LinearCall&);
  void (*linear)(const LinearCall&, char* scratch, int rank, int threads);
  // One share of the rows and columns; shares do not wait for each other.
  void (*scan_forward)(const Scan&, int share, int shares);
  void (*scan_backward)(const Scan&, int share, int shares);
};

}  // namespace recurra
