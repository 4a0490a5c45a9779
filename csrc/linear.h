// y = x Wᵀ + b with the bits of the recurrent kernels: every output is one sum in ascending order,
// whatever rows and threads there are.
#pragma once

#include "panels.h"
#include "plan.h"

namespace recurra::RECURRA_LEVEL {

template <class T>
index linear_scratch(const LinearCall& call) {
  return round_up(call.inputs * plain_width<T> * static_cast<index>(sizeof(T)), 64);
}

// The outputs of plain panel p for the rows [first, last).
template <class T>
void linear_panel(const LinearCall& call, index p, index first, index last, T* panel) {
  constexpr int w = lanes<T>;
  const index width = plain_width<T>;
  const T* const weight = static_cast<const T*>(call.weight);
  const T* const bias = static_cast<const T*>(call.bias);
  pack_transposed_panel(weight, call.outputs, call.inputs, p, panel);
  Vec<T> start[plain];
  for (int n = 0; n < plain; ++n) {
    const index unit = p * width + n * w, count = larger(0, smaller(w, call.outputs - unit));
    start[n] = bias && count ? load_first(bias + unit, count) : broadcast(T(0));
  }
  for_row_groups<tile_rows<T, plain>>(last - first, [&](auto group, index row) {
    constexpr int R = decltype(group)::value;
    Vec<T> acc[R][plain];
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < plain; ++n) acc[r][n] = start[n];
    const RowBlock<R, T> rows(static_cast<const T*>(call.x) + (first + row) * call.x_stride, call.x_stride);
    accumulate(acc, rows.row, panel, call.inputs);
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < plain; ++n) {
        const index unit = p * width + n * w;
        if (unit < call.outputs)
          store_first(static_cast<T*>(call.y) + (first + row + r) * call.outputs + unit, acc[r][n],
                      smaller(w, call.outputs - unit));
      }
  });
}

// Threads share the panels, or the rows where there are few panels.
template <class T>
void run_linear(const LinearCall& call, char* scratch, int rank, int threads) {
  const index panels = (call.outputs + plain_width<T> - 1) / plain_width<T>;
  const Team team{rank, threads, nullptr};
  const bool by_panel = panels >= threads;
  const Range mine = by_panel ? team.share(panels) : Range{0, panels};
  const Range rows = by_panel ? Range{0, call.rows} : team.share(call.rows);
  T* const panel = reinterpret_cast<T*>(scratch + rank * linear_scratch<T>(call));
  for (index p = mine.begin; p < mine.end; ++p) linear_panel(call, p, rows.begin, rows.end, panel);
}

}  // namespace recurra::RECURRA_LEVEL
