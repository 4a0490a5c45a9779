// The compiled core's door to Python: each function checks, allocates, unlocks, calls and returns.
// The work itself is in the headers beside this file, which know nothing of Python.

#include <nanobind/nanobind.h>

#include "threads.h"

NB_MODULE(_core, module) {
  module.doc() = "Compiled core of recurra: the inner loops, independent of torch.";
  module.def("threads_allowed", &recurra::threads_allowed,
             "Number of CPUs that this process may run on (at least 1).");
}
