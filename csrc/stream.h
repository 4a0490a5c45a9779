// A stack of layers that keeps its packed weights and its state between calls.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "call.h"
#include "memory.h"

namespace recurra {

class Stream {
 public:
  // The layers' cell, sizes, parameters, zoneout, and in h_0 and c_0 the memory of their state, which
  // every push reads and writes; everything else in them is set here. Parameters are packed now and
  // not looked at again. Layer n takes the outputs of layer n - 1.
  Stream(std::vector<Layer> layers, index batch, Stored stored, const Level& level, int threads);

  Stream(const Stream&) = delete;  // the plan points into it

  // Takes `time` steps of every row: x and y as in Layer. Callers wait for each other.
  void push(Rows<const void> x, Rows<void> y, index time);

 private:
  struct Held {
    Layer layer;
    Bytes work;
  };
  static Bytes make(index bytes);
  void run(int rank);
  void plan_threads(int threads);

  const Level& level_;
  const Stored stored_;
  const index batch_;
  const index element_;
  const int threads_;
  std::vector<Held> layers_;
  std::vector<index> order_, length_, begin_;
  std::vector<char> between_[2];  // outputs of one layer on their way to the next
  Plan plan_;
  std::mutex pushing_;
  std::unique_ptr<Barrier> everybody_;  // on its own, where its alignment is kept
};

}  // namespace recurra
