// One call of the kernels from outside: plan, memory, threads.
#pragma once

#include "plan.h"

namespace recurra {

// How a call is to run; 0 or null means: choose.
struct Choice {
  const Level* level = nullptr;
  int threads = 0;
  int slices = 0;
  int team = 0;
};

// The widest level that this machine can run.
const Level& widest_level();

// The level of this name, or null when this build or this machine has none.
const Level* find_level(const char* name);

// Throws std::bad_alloc when there is no memory.
void run_forward(const Layer& layer, Choice choice);
void run_backward(const Layer& layer, Choice choice);

// `slices` and `team` have no meaning here.
void run_linear(const LinearCall& call, Choice choice);

// Here `slices` are shares of rows and columns, and `team` has no meaning.
void run_scan_forward(const Scan& scan, Choice choice);
void run_scan_backward(const Scan& scan, Choice choice);

// Threads and slices that a call would take, for `explain`.
Plan outline(const Layer& layer, Choice choice);

// Fill fresh workspaces with NaN, so that a test sees what is read before it was written.
void poison_workspaces(bool on);

}  // namespace recurra
