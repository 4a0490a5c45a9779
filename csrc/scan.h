// The scan h = a ⊙ h + b over time, plain or with the gates of minGRU; the equations are in
// src/recurra/kernels/scan.py.
//
// Every column of every row is a recurrence of its own, so the work is shared out by rows and columns
// and threads never wait. A tile is small enough for its state to stay in the first-level cache while
// the steps go by. The state before a step is read from h, where it was written; backward reads it
// there too and computes the gates again, so that h is all that is saved.
#pragma once

#include "activations.h"
#include "plan.h"
#include "sequence.h"

namespace recurra::RECURRA_LEVEL {

// Elements of the state in a tile.
inline constexpr index tile_size = 1024;

template <class T>
inline constexpr T zeros[tile_size] = {};

// `yes` where test < 0, else, and for NaN, `no`.
#if defined(RECURRA_LEVEL_SCALAR)
template <class T>
RECURRA_INLINE Vec<T> where_negative(const Vec<T>& test, const Vec<T>& yes, const Vec<T>& no) {
  Vec<T> result;
  for (int n = 0; n < lanes<T>; ++n) result.lane[n] = test.lane[n] < 0 ? yes.lane[n] : no.lane[n];
  return result;
}
#else
template <class V>
RECURRA_INLINE V where_negative(V test, V yes, V no) {
  return test < V{} ? yes : no;
}
#endif

// A step and its way back: `backward` takes the gradient at the new state, sets those of the two
// inputs, and returns that of the state before.
template <class T>
struct LinearScan {
  using Element = T;
  static constexpr bool second_in_backward = false;

  RECURRA_INLINE static Vec<T> forward(Vec<T> a, Vec<T> b, Vec<T> before) { return fma(a, before, b); }

  RECURRA_INLINE static Vec<T> backward(Vec<T> a, Vec<T>, Vec<T> before, Vec<T> d_h, Vec<T>& d_a, Vec<T>& d_b) {
    d_a = d_h * before;
    d_b = d_h;
    return a * d_h;
  }
};

template <class T, bool positive>
struct MinGruScan {
  using Element = T;
  static constexpr bool second_in_backward = true;

  RECURRA_INLINE static Vec<T> forward(Vec<T> k, Vec<T> v, Vec<T> before) {
    const Vec<T> z = sigmoid(k);
    Vec<T> g = v;
    if constexpr (positive) g = where_negative(v, sigmoid(v), v + broadcast(T(0.5)));
    return fma(broadcast(T(1)) - z, before, z * g);
  }

  RECURRA_INLINE static Vec<T> backward(Vec<T> k, Vec<T> v, Vec<T> before, Vec<T> d_h, Vec<T>& d_k, Vec<T>& d_v) {
    const Vec<T> one = broadcast(T(1)), z = sigmoid(k), keep = one - z;
    Vec<T> g = v;
    d_v = d_h * z;
    if constexpr (positive) {
      const Vec<T> s = sigmoid(v);
      g = where_negative(v, s, v + broadcast(T(0.5)));
      d_v = where_negative(v, d_v * s * (one - s), d_v);
    }
    d_k = d_h * (g - before) * z * keep;
    return keep * d_h;
  }
};

struct Tile {
  index row, rows;
  index column, columns;
};

RECURRA_INLINE index length_of(const Scan& scan, index row) {
  return scan.lengths ? static_cast<index>(scan.lengths[row]) : scan.time;
}

RECURRA_INLINE bool is_reset(const Scan& scan, index row, index t) {
  return scan.reset.data && scan.reset.data[row * scan.reset.batch_stride + t * scan.reset.time_stride];
}

// A row of a (batch, width) array, or zeros where there is none.
template <class T>
RECURRA_INLINE const T* start_of(const Scan& scan, const void* array, index row, index column) {
  return array ? static_cast<const T*>(array) + row * scan.width + column : zeros<T>;
}

// The state before step `step` of a row, which is at time t.
template <class T>
RECURRA_INLINE const T* state_before(const Scan& scan, index row, index step, index t, index column) {
  if (is_reset(scan, row, t)) return zeros<T>;
  if (step == 0) return start_of<T>(scan, scan.h_0, row, column);
  return at<T>(scan.h, row, scan.reverse ? t + 1 : t - 1) + column;
}

template <class Kind, class T>
RECURRA_INLINE void step_forward(const T* a, const T* b, const T* before, T* h, index count) {
  index n = 0;
  for (; n + lanes<T> <= count; n += lanes<T>)
    store(h + n, Kind::forward(load(a + n), load(b + n), load(before + n)));
  const index rest = count - n;
  if (rest > 0)
    store_first(h + n, Kind::forward(load_first(a + n, rest), load_first(b + n, rest), load_first(before + n, rest)),
                rest);
}

template <class Kind>
void tile_forward(const Scan& scan, const Tile& tile) {
  using T = typename Kind::Element;
  const index c = tile.column, count = tile.columns;
  for (index step = 0; step < scan.time; ++step)
    for (index row = tile.row; row < tile.row + tile.rows; ++row) {
      const index length = length_of(scan, row);
      if (step >= length) {
        fill(at<T>(scan.h, row, step) + c, count, T(0));
        continue;
      }
      const index t = scan.reverse ? length - 1 - step : step;
      step_forward<Kind>(at<T>(scan.a, row, t) + c, at<T>(scan.b, row, t) + c,
                         state_before<T>(scan, row, step, t, c), at<T>(scan.h, row, t) + c, count);
    }
  for (index row = tile.row; row < tile.row + tile.rows; ++row) {
    const index length = length_of(scan, row);
    const T* const last = length == 0 ? start_of<T>(scan, scan.h_0, row, c)
                                      : at<T>(scan.h, row, scan.reverse ? 0 : length - 1) + c;
    copy(static_cast<T*>(scan.h_n) + row * scan.width + c, last, count);
  }
}

// d_a and d_b may be null. `carry` is the gradient that comes back from the step after.
template <class Kind, class T>
RECURRA_INLINE void step_backward(const T* a, const T* b, const T* before, const T* d_h, T* d_a, T* d_b, T* carry,
                                  index count) {
  for (index n = 0; n < count; n += lanes<T>) {
    const index some = smaller(lanes<T>, count - n);
    const Vec<T> first = load_first(a + n, some);
    Vec<T> second = first;
    if constexpr (Kind::second_in_backward) second = load_first(b + n, some);
    Vec<T> d_first, d_second;
    const Vec<T> back = Kind::backward(first, second, load_first(before + n, some),
                                       load_first(d_h + n, some) + load(carry + n), d_first, d_second);
    store(carry + n, back);
    if (d_a) store_first(d_a + n, d_first, some);
    if (d_b) store_first(d_b + n, d_second, some);
  }
}

template <class Kind>
void tile_backward(const Scan& scan, const Tile& tile) {
  using T = typename Kind::Element;
  alignas(vector_bytes) T carry[tile_size] = {};
  const index c = tile.column, count = tile.columns, stride = round_up(count, lanes<T>);
  for (index n = 0; n < tile.rows; ++n)
    copy(carry + n * stride, start_of<T>(scan, scan.d_h_n, tile.row + n, c), count);
  for (index step = scan.time - 1; step >= 0; --step)
    for (index n = 0; n < tile.rows; ++n) {
      const index row = tile.row + n, length = length_of(scan, row);
      const bool real = step < length;
      const index t = scan.reverse && real ? length - 1 - step : step;
      T* const d_a = scan.d_a.data ? at<T>(scan.d_a, row, t) + c : nullptr;
      T* const d_b = scan.d_b.data ? at<T>(scan.d_b, row, t) + c : nullptr;
      if (!real) {
        if (d_a) fill(d_a, count, T(0));
        if (d_b) fill(d_b, count, T(0));
        continue;
      }
      step_backward<Kind>(at<T>(scan.a, row, t) + c, at<T>(scan.b, row, t) + c,
                          state_before<T>(scan, row, step, t, c),
                          scan.d_h.data ? at<T>(scan.d_h, row, t) + c : zeros<T>, d_a, d_b, carry + n * stride, count);
      if (is_reset(scan, row, t)) fill(carry + n * stride, count, T(0));
    }
  if (scan.d_h_0)
    for (index n = 0; n < tile.rows; ++n)
      copy(static_cast<T*>(scan.d_h_0) + (tile.row + n) * scan.width + c, carry + n * stride, count);
}

// A place in the batch: a row, and a number of cache lines into it.
struct Place {
  index row, line;
};

// Padding is only set to 0.
RECURRA_INLINE index cost_of(const Scan& scan, index row) { return 2 * length_of(scan, row) + scan.time + 1; }

// Where `cost` is spent when rows of `lines` lines are worked off one after another.
inline Place place_of(const Scan& scan, index lines, index cost) {
  for (index row = 0; row < scan.batch; ++row) {
    const index each = cost_of(scan, row);
    if (cost < each * lines) return {row, cost / each};
    cost -= each * lines;
  }
  return {scan.batch, 0};
}

// Calls body(Tile) for the tiles of one share.
template <class T, class Body>
void for_tiles(const Scan& scan, int share, int shares, const Body& body) {
  constexpr index line = 64 / static_cast<index>(sizeof(T));
  const index lines = round_up(scan.width, line) / line;
  index total = 0;
  for (index row = 0; row < scan.batch; ++row) total += cost_of(scan, row) * lines;
  const Place from = place_of(scan, lines, total * share / shares);
  const Place to = place_of(scan, lines, total * (share + 1) / shares);
  // Rows that lie side by side in memory at every step are worked on together.
  const bool together = scan.a.batch_stride < scan.a.time_stride;
  const index most = together ? larger(1, tile_size / round_up(scan.width, lanes<T>)) : 1;
  const auto piece = [&](index row, index rows, index begin, index end) {
    for (index c = begin; c < end; c += tile_size) body(Tile{row, rows, c, smaller(tile_size, end - c)});
  };
  const auto column = [&](index number) { return smaller(number * line, scan.width); };
  index row = from.row;
  if (from.line > 0) {
    const bool only = from.row == to.row;
    piece(row, 1, column(from.line), only ? column(to.line) : scan.width);
    if (only) return;
    ++row;
  }
  for (; row < to.row; row += most) piece(row, smaller(most, to.row - row), 0, scan.width);
  if (to.line > 0) piece(to.row, 1, 0, column(to.line));
}

template <class Body>
void with_kind(const Scan& scan, const Body& body) {
  const auto typed = [&](auto one) {
    using T = decltype(one);
    switch (scan.kind) {
      case ScanKind::linear: return body(LinearScan<T>{});
      case ScanKind::min_gru: return body(MinGruScan<T, true>{});
      case ScanKind::min_gru_plain: return body(MinGruScan<T, false>{});
    }
  };
  return scan.is_double ? typed(1.0) : typed(1.0F);
}

}  // namespace recurra::RECURRA_LEVEL
