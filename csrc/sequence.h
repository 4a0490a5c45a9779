// The driver of all recurrences: time, lengths, resets, directions, slices of the batch, chunks of
// input projection and of weight gradients. What one step of a cell computes is in lstm.h, gru.h and
// their like, which fill in the template parameter Cell.
//
// Order of memory
//   h, c, carries   (rows of the pass, padded size): compact, whatever the strides of the caller;
//                   c has the Cell::parts of the state beside h, one after another
//   saved           (step, batch, slots, padded hidden): what Cell::forward keeps for backward
//   ring            (entry, slots, padded hidden): gradients of gates of the steps since the last flush
//   An entry is one row at one step; entries of a step are consecutive, in the order of rows.
//
// Rows of a slice are sorted by length, longest first, so the rows that are real at a step are the
// first `active` ones, in either direction: a reversed row starts at its own last step.
#pragma once

#include "activations.h"
#include "panels.h"
#include "plan.h"

namespace recurra::RECURRA_LEVEL {

// Rows that one pass over time carries along; larger slices take several passes.
inline constexpr index pass_rows = 64;
// Inputs up to this size are multiplied within the step; larger ones some steps ahead.
inline constexpr index fused_input = 32;

// Fixed by the cell and the layer's sizes.
struct Sizes {
  index batch, time, input, hidden, output;
  index padded;       // hidden, rounded up to whole panels
  index state;        // row length of h buffers and of d_h
  index carried;      // row length of c buffers and of d_c: Cell::parts * padded
  index panel_width;  // of the gates' panels, all slots together
  index panels;       // of the gates
  index projected;    // row length of a projected input: panels * panel_width
};

// Parameters in panels, one set for each direction, shared by all slices.
template <class T, class Storage = Full<T>>
struct Packed {
  Weights<T, Storage> w;       // gates from x
  Weights<T, Storage> u;       // gates from h
  Weights<T, Storage> u_late;  // the second product of a step: GRU with reset before it, projection
  T* bias = nullptr;           // a row of bias for each panel, as the tile starts
  T* diagonal = nullptr;       // (Cell::diagonals, padded hidden)
};

// The same for the way back.
template <class T>
struct PackedBack {
  T* w_back = nullptr;   // plain panels of weight_ih, for d_x
  T* u_back = nullptr;   // plain panels of weight_hh, for d_h
  T* late_back = nullptr;
  T* diagonal = nullptr;
};

// Sums of weight gradients of one slice, transposed: (column of the weight, slots, padded hidden).
template <class T>
struct Sums {
  T* x = nullptr;
  T* h = nullptr;
  T* late = nullptr;
  T* bias = nullptr;
  T* diagonal = nullptr;
};

// Arguments of Cell::forward: one step of the first `active` rows. Pointer tables have one entry per
// row; a null table means that the feature is off.
template <class T, class Storage>
struct Step {
  Sizes sizes;
  const Packed<T, Storage>* packed;
  Team team;
  index active;
  const T* const* x;    // null when `projected` is given
  const T* projected;   // (active, sizes.projected)
  const T* h;           // the state before the step
  const T* h_in;        // the same with its dropout mask
  T* h_next;
  T* c;
  T* hidden_buffer;     // (rows, padded): hidden output before a projection, or z
  T* late_input;        // (rows, state): r ⊙ h
  T* const* y;
  T* const* saved;
  const T* const* zone_h;
  const T* const* zone_c;
  T keep_h, keep_c[most_parts];
  bool zones_c;         // whether any part of c has zoneout
  const T* diagonal;    // (Cell::diagonals, padded hidden), or null
  T dt;
  T* x_parts;           // of one tile, while its product with h is summed

  // Bias and input part of a tile of gates; the bias of a panel is `bias_stride` long.
  template <int R, int N>
  RECURRA_INLINE void start(Vec<T> (&acc)[R][N], index panel, index row, index bias_stride) const {
    const index width = N * lanes<T>;
    if (projected) {
      for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n)
          acc[r][n] = load(projected + (row + r) * sizes.projected + panel * width + n * lanes<T>);
      return;
    }
    for (int n = 0; n < N; ++n) {
      const Vec<T> bias = load(packed->bias + panel * bias_stride + n * lanes<T>);
      for (int r = 0; r < R; ++r) acc[r][n] = bias;
    }
    const T* rows[R];
    for (int r = 0; r < R; ++r) rows[r] = x[row + r];
    packed->w.multiply(acc, rows, panel, sizes.input);
  }

  // Rows of a tile of N vectors.
  template <int N>
  static constexpr int most_rows = tile_rows<T, N> < Storage::most_rows ? tile_rows<T, N> : Storage::most_rows;

  RECURRA_INLINE bool has_zone_h() const { return zone_h || keep_h != 0; }
  RECURRA_INLINE bool has_zone_c() const { return zones_c; }

  RECURRA_INLINE Vec<T> zoned(const T* const* zone, T keep, index row, index unit, index count, Vec<T> old,
                              Vec<T> stepped) const {
    const Vec<T> k = zone ? load_first(zone[row] + unit, count) : broadcast(keep);
    return k * old + (broadcast(T(1)) - k) * stepped;
  }
  RECURRA_INLINE Vec<T> zoned_c(int which, index row, index unit, index count, Vec<T> old, Vec<T> stepped) const {
    return zoned(zone_c, keep_c[which], row, which * sizes.hidden + unit, count, old, stepped);
  }

  // Asks for the cache lines that the tile after the next one saves to: no cache holds them.
  RECURRA_INLINE void look_ahead(T* to, index panel, int slots) const {
    if (!begins_line(panel)) return;
    for (int slot = 0; slot < slots; ++slot) prefetch_line_to_write(to + slot * sizes.padded + 2 * lanes<T>);
  }

  // Writes `count` units of the new state of one row, from `unit` on.
  RECURRA_INLINE void finish_h(index row, index unit, index count, Vec<T> value) const {
    if (has_zone_h()) value = zoned(zone_h, keep_h, row, unit, count, load(h + row * sizes.state + unit), value);
    store(h_next + row * sizes.state + unit, value);
    store_first(y[row] + unit, value, count);
  }
};

// Arguments of Cell::backward: from the gradients at the state after a step to those at its gates,
// in `ring`, and at the state before it, in `d_h` and `d_c`.
template <class T>
struct BackStep {
  Sizes sizes;
  const PackedBack<T>* packed;
  Team team;
  index active;
  const T* const* d_y;    // null when there is none
  const T* const* saved;
  const T* const* y;      // outputs of this step
  const T* const* h_prev;
  const T* const* c_prev;
  const T* const* mask;
  const T* const* zone_h;
  const T* const* zone_c;
  T keep_h, keep_c[most_parts];
  bool zones_c;           // whether any part of c has zoneout
  index c_stride;         // from one part to the next in c_prev
  const T* diagonal;      // (Cell::diagonals, padded hidden), or null
  T dt;
  T* d_diagonal;          // its gradient's sums
  T* d_h;                 // (rows, state)
  T* d_c;                 // (rows, carried)
  T* part;                // (rows, state): scratch
  T* ring;                // this step's first entry
  T* ring_late;           // second input of this step's products: (entry, late row length)
  T* ring_d_late;
  index ring_size, late_size, d_late_size;
  index to_saved_before, to_d_y_before;  // from this step's to those of the step before, or 0

  RECURRA_INLINE bool has_zone_h() const { return zone_h || keep_h != 0; }
  RECURRA_INLINE bool has_zone_c() const { return zones_c; }

  // The gradient at a state after zoneout: the part of the old value, and that of the new one.
  struct Split {
    Vec<T> old, stepped;
  };
  RECURRA_INLINE Split split(const T* const* zone, T keep, index row, index unit, index count, Vec<T> gradient) const {
    const Vec<T> k = zone ? load_first(zone[row] + unit, count) : broadcast(keep);
    return {k * gradient, (broadcast(T(1)) - k) * gradient};
  }
  RECURRA_INLINE Split split_h(index row, index unit, index count, Vec<T> gradient) const {
    if (!has_zone_h()) return {broadcast(T(0)), gradient};
    return split(zone_h, keep_h, row, unit, count, gradient);
  }
  RECURRA_INLINE Split split_c(int which, index row, index unit, index count, Vec<T> gradient) const {
    if (!has_zone_c()) return {broadcast(T(0)), gradient};
    return split(zone_c, keep_c[which], row, which * sizes.hidden + unit, count, gradient);
  }

  // Asks for what the row `rows_ahead` further on reads of these units: saved slots and the gradient at
  // y. Past the last row that is one of the step before. `n` counts vectors of a row.
  static constexpr index rows_ahead = 3;
  RECURRA_INLINE void look_ahead(index row, index n, int slots) const {
    if (!begins_line(n)) return;
    index later = row + rows_ahead, to_saved = 0, to_d_y = 0;
    if (later >= active) {
      later -= active;
      to_saved = to_saved_before;
      to_d_y = to_d_y_before;
    }
    if (later >= active) return;
    const index unit = n * lanes<T>;
    const T* const from = saved[later] + to_saved + unit;
    for (int slot = 0; slot < slots; ++slot) prefetch_line(from + slot * sizes.padded);
    if (d_y) prefetch_line(d_y[later] + to_d_y + unit);
  }

  // d_h of one vector, with the gradient that arrives at the output.
  RECURRA_INLINE Vec<T> arriving(index row, index unit, index count) const {
    Vec<T> sum = load(d_h + row * sizes.state + unit);
    if (d_y) sum = sum + load_first(d_y[row] + unit, count);
    return count < lanes<T> ? keep_first(sum, count) : sum;
  }

  // d_h = mask ⊙ (start + gates · panels) + direct, the last product of a step. `gates` are `size`
  // numbers at each entry of the ring from `offset` on; start and direct may be null, direct is d_h.
  void product(const T* panels, index offset, index size, const T* start, bool direct) const {
    constexpr int N = plain;
    const index width = plain_width<T>;
    const Range range = team.share((sizes.output + width - 1) / width);
    const auto weights = plain_weights(panels, sizes.output * size);
    weights.with_ahead([&](auto ahead) {
      for (index p = range.begin; p < range.end; ++p)
        for_row_groups<tile_rows<T, N>>(active, [&](auto group, index row) {
          constexpr int R = decltype(group)::value;
          Vec<T> acc[R][N];
          for (int r = 0; r < R; ++r)
            for (int n = 0; n < N; ++n)
              acc[r][n] = start ? load(start + (row + r) * sizes.state + p * width + n * lanes<T>) : broadcast(T(0));
          const RowBlock<R, T> rows(ring + row * ring_size + offset, ring_size);
          weights.template multiply<decltype(ahead)::value>(acc, rows.row, p, size, row, active);
          for (int r = 0; r < R; ++r) {
            for (int n = 0; n < N; ++n) {
              const index unit = p * width + n * lanes<T>;
              const index count = larger(0, smaller(lanes<T>, sizes.output - unit));
              T* to = d_h + (row + r) * sizes.state + unit;
              Vec<T> value = acc[r][n];
              if (mask) value = value * load_first(mask[row + r] + unit, count);
              if (direct) value = value + load(to);
              store(to, value);
            }
          }
        });
    });
  }
};

// The rows of one slice that one pass takes along.
struct Pass {
  const index* row;     // in the batch
  const index* length;  // real steps, longest first
  index rows;

  index active(index step) const {
    index count = rows;
    while (count > 0 && length[count - 1] <= step) --count;
    return count;
  }
};

template <class Body>
void for_passes(const Plan& plan, int slice, const Body& body) {
  const index begin = plan.begin[slice], rows = plan.begin[slice + 1] - begin;
  const index passes = (rows + pass_rows - 1) / pass_rows;
  for (index pass = 0; pass < passes; ++pass) {
    const index from = begin + rows * pass / passes, to = begin + rows * (pass + 1) / passes;
    body(Pass{plan.order + from, plan.length + from, to - from});
  }
}

// Most rows that any pass takes along.
inline index widest_pass(const Layer& layer, const Plan& plan) {
  return smaller(pass_rows, (layer.batch + plan.slices - 1) / plan.slices);
}

template <class T>
const T* at(const Rows<const void>& rows, index row, index time) {
  return static_cast<const T*>(rows.data) + row * rows.batch_stride + time * rows.time_stride;
}

template <class T>
T* at(const Rows<void>& rows, index row, index time) {
  return static_cast<T*>(rows.data) + row * rows.batch_stride + time * rows.time_stride;
}

// Where a row's step lies along the axis of x.
inline index time_of(const Direction& direction, index length, index step) {
  return direction.reverse ? length - 1 - step : step;
}

inline bool is_reset(const Layer& layer, index row, index time) {
  return layer.reset.data && layer.reset.data[row * layer.reset.batch_stride + time * layer.reset.time_stride];
}

template <class T>
void fill(T* to, index count, T value) {
  for (index n = 0; n < count; ++n) to[n] = value;
}

template <class T>
void copy(T* to, const T* from, index count) {
  for (index n = 0; n < count; ++n) to[n] = from[n];
}

// One row of a (rows, size) array, or zeros where there is none, and zeros up to `padded`.
template <class T>
void copy_row(T* to, const void* from, index row, index size, index padded) {
  if (from) copy(to, static_cast<const T*>(from) + row * size, size);
  else fill(to, size, T(0));
  fill(to + size, padded - size, T(0));
}

// One row of c between the caller's array, (rows, Cell::parts * hidden), and a buffer of ours.
template <class Cell, class T>
void copy_carried_in(T* to, const void* from, index row, const Sizes& s) {
  for (int part = 0; part < Cell::parts; ++part)
    copy_row(to + part * s.padded, from, row * Cell::parts + part, s.hidden, s.padded);
}

template <class Cell, class T>
void copy_carried_out(void* to, index row, const T* from, const Sizes& s) {
  for (int part = 0; part < Cell::parts; ++part)
    copy(static_cast<T*>(to) + (row * Cell::parts + part) * s.hidden, from + part * s.padded, s.hidden);
}

template <class T>
bool zones_c(const Direction& d) {
  bool any = d.zone_c.data;
  for (const double keep : d.keep_c) any = any || static_cast<T>(keep) != 0;
  return any;
}

// Zeros from a row's last real step on.
template <class T>
void clear_padding(const Rows<void>& rows, const Pass& pass, index time, index size, Team team) {
  const Range range = team.share(pass.rows);
  for (index r = range.begin; r < range.end; ++r)
    for (index t = pass.length[r]; t < time; ++t) fill(at<T>(rows, pass.row[r], t), size, T(0));
}

template <class Cell>
Sizes sizes_of(const Layer& layer) {
  using T = typename Cell::Element;
  Sizes s{};
  s.batch = layer.batch;
  s.time = layer.time;
  s.input = layer.input;
  s.hidden = layer.hidden;
  s.output = layer.output;
  s.padded = round_up(layer.hidden, Cell::panel_units);
  s.state = round_up(layer.output, plain_width<T>);
  s.carried = Cell::parts * s.padded;
  s.panel_width = Cell::panel_units * Cell::x_slots.count;
  s.panels = s.padded / Cell::panel_units;
  s.projected = s.panels * s.panel_width;
  return s;
}

// What Cell::forward saves of one row and step.
template <class Cell>
index step_size(const Layer& layer) {
  bool zone = false;
  for (int d = 0; d < layer.directions; ++d)
    zone = zone || layer.direction[d].zone_h.data || layer.direction[d].keep_h != 0;
  return Cell::saved_slots(zone) * sizes_of<Cell>(layer).padded;
}

// What a call saves of it: all, or the parts of c alone, which the way back cannot rebuild as it does
// the gates.
template <class Cell>
index saved_size(const Layer& layer) {
  if (!layer.rebuild) return step_size<Cell>(layer);
  return sizes_of<Cell>(layer).carried;
}

// Panels of a plain matrix with this many columns.
template <class T>
index plain_panels(index columns) {
  return (columns + plain_width<T> - 1) / plain_width<T>;
}

// Entries that are projected at once: enough rows for full tiles, few enough to stay in cache until
// their steps come; all at once when the weights alone overflow the cache.
template <class Cell>
index projected_entries(const Sizes& s, index rows) {
  using T = typename Cell::Element;
  if (s.input <= fused_input && Cell::can_fuse) return 0;
  const bool large = s.projected * s.input * static_cast<index>(sizeof(T)) > (index{1} << 19);
  return larger(rows, smaller(s.time * rows, large ? 1024 : 128));
}

}  // namespace recurra::RECURRA_LEVEL
