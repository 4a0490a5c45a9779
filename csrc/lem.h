// Long expressive memory; the equations are in src/recurra/cells/lem.py. h is y here, and c is z.
//
// Slots s t z y in panels, in saved memory (followed by z') and in the ring. The first three have a
// product with y; the last one waits for z' and has a product with that.
#pragma once

#include "workspace.h"

namespace recurra::RECURRA_LEVEL {

template <class T>
struct Lem {
  using Element = T;
  static constexpr int w = lanes<T>;
  static constexpr int panel_units = w;
  static constexpr Slots x_slots{4, {0, 1, 2, 3}};
  static constexpr Slots u_slots{3, {0, 1, 2}};
  static constexpr Slots h_slots = u_slots;
  static constexpr Slots z_slots{1, {0}};
  static constexpr int x_vectors = 4;
  static constexpr int bias_stride = 4 * w;
  static constexpr int ring_slots = 4;
  static constexpr int first_x_slot = 0;
  static constexpr int late_slot = 3;
  static constexpr int parts = 1;
  static constexpr int c_slot = 4;
  static constexpr int diagonals = 0;
  static constexpr bool late_is_hr = true;
  static constexpr bool can_fuse = false;  // the last slot starts in the second product of a step

  static index saved_slots(bool) { return 5; }
  static index hidden_buffer_size(const Sizes& s) { return s.padded; }
  static index late_input_size(const Sizes& s) { return s.state; }
  static constexpr int late_width = w;
  static index late_panels(const Sizes& s) { return s.panels; }
  static index late_terms(const Sizes& s) { return s.output; }
  static index late_back_size(const Sizes& s) { return plain_panels<T>(s.output) * s.padded * plain_width<T>; }
  static index late_size(const Sizes& s) { return s.state; }
  static index d_late_size(const Sizes&) { return 0; }
  static index late_columns(const Sizes& s) { return s.output; }
  static index late_sum_size(const Sizes& s) { return s.output * s.padded; }

  static void pack(const Sizes& s, const Direction& d, const Packed<T>& to, Team team) {
    const Range mine = team.share(s.panels);
    pack_interleaved(static_cast<const T*>(d.weight_ih), s.hidden, s.input, x_slots, mine.begin, mine.end, to.w.panels);
    pack_interleaved(static_cast<const T*>(d.weight_hh), s.hidden, s.output, u_slots, mine.begin, mine.end, to.u.panels);
    pack_interleaved(static_cast<const T*>(d.weight_hr), s.hidden, s.output, z_slots, mine.begin, mine.end,
                     to.u_late.panels);
    for (index p = mine.begin; p < mine.end; ++p)
      for (int slot = 0; slot < 4; ++slot)
        pack_bias<T>(d.bias_ih, nullptr, slot, s.hidden, p * w, to.bias + p * bias_stride + slot * w);
  }

  static void pack_back(const Sizes& s, const Direction& d, const PackedBack<T>& to, Team team) {
    const Range mine = team.share(plain_panels<T>(s.output));
    pack_rows(static_cast<const T*>(d.weight_hh), s.hidden, s.padded, s.output, h_slots, mine.begin, mine.end, to.u_back);
    pack_rows(static_cast<const T*>(d.weight_hr), s.hidden, s.padded, s.output, z_slots, mine.begin, mine.end,
              to.late_back);
  }

  template <class Storage>
  static void forward(const Step<T, Storage>& step) {
    using S = Step<T, Storage>;
    const Sizes& s = step.sizes;
    const Range range = step.team.share(s.panels);
    for (index p = range.begin; p < range.end; ++p)
      for_row_groups<S::template most_rows<3>>(step.active, [&](auto group, index row) {
        forward_z<decltype(group)::value>(step, p, row);
      });
    step.team.wait();
    for (index p = range.begin; p < range.end; ++p)
      for_row_groups<S::template most_rows<1>>(step.active, [&](auto group, index row) {
        constexpr int R = decltype(group)::value;
        const index unit = p * w, count = smaller(w, s.hidden - unit);
        Vec<T> acc[R][1];
        for (int r = 0; r < R; ++r) acc[r][0] = load(step.projected + (row + r) * s.projected + p * 4 * w + 3 * w);
        const RowBlock<R, T> rows(step.late_input + row * s.state, s.state);
        step.packed->u_late.multiply(acc, rows.row, p, s.output);
        clear_missing(acc, count);
        for (int r = 0; r < R; ++r) {
          const Vec<T> n = tanh(acc[r][0]), t = load(step.hidden_buffer + (row + r) * s.padded + unit);
          if (step.saved) store(step.saved[row + r] + 3 * s.padded + unit, n);
          const Vec<T> before = load(step.h + (row + r) * s.state + unit);
          step.finish_h(row + r, unit, count, fma(t, n - before, before));
        }
      });
  }

  // s, t and z' of one tile; z' goes on to the second product as it is, and to c with its zoneout.
  template <int R, class Storage>
  static void forward_z(const Step<T, Storage>& step, index p, index row) {
    const Sizes& s = step.sizes;
    const index unit = p * w, count = smaller(w, s.hidden - unit);
    const Vec<T> dt = broadcast(step.dt);
    Vec<T> acc[R][3];
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < 3; ++n)
        acc[r][n] = load(step.projected + (row + r) * s.projected + p * 4 * w + n * w);
    const RowBlock<R, T> rows(step.h_in + row * s.state, s.state);
    step.packed->u.multiply(acc, rows.row, p, s.output);
    clear_missing(acc, count);
    for (int r = 0; r < R; ++r) {
      const Vec<T> fast = dt * sigmoid(acc[r][0]), t = dt * sigmoid(acc[r][1]), n = tanh(acc[r][2]);
      T* const cell = step.c + (row + r) * s.padded + unit;
      const Vec<T> before = load(cell), stepped = fma(fast, n - before, before);
      Vec<T> z = stepped;
      if (step.has_zone_c()) z = step.zoned_c(0, row + r, unit, count, before, stepped);
      store(cell, z);
      store(step.hidden_buffer + (row + r) * s.padded + unit, t);
      store(step.late_input + (row + r) * s.state + unit, stepped);
      if (!step.saved) continue;
      T* const to = step.saved[row + r] + unit;
      step.look_ahead(to, p, 5);
      store(to, fast);
      store(to + s.padded, t);
      store(to + 2 * s.padded, n);
      store(to + 4 * s.padded, z);
    }
  }

  static void backward(const BackStep<T>& step) {
    const Sizes& s = step.sizes;
    const Vec<T> one = broadcast(T(1)), rate = broadcast(T(1) / step.dt);
    const Range range = step.team.share(s.panels);
    for (index row = 0; row < step.active; ++row) {
      const T* const saved = step.saved[row];
      T* const ring = step.ring + row * step.ring_size;
      for (index p = range.begin; p < range.end; ++p) {
        const index unit = p * w, count = smaller(w, s.hidden - unit);
        step.look_ahead(row, p, 5);
        const Vec<T> t = load(saved + s.padded + unit), n = load(saved + 3 * s.padded + unit);
        const Vec<T> before = load_first(step.h_prev[row] + unit, count);
        const auto [direct, d_h] = step.split_h(row, unit, count, step.arriving(row, unit, count));
        store(ring + s.padded + unit, d_h * (n - before) * t * (one - t * rate));
        store(ring + 3 * s.padded + unit, d_h * t * (one - n * n));
        store(step.d_h + row * s.state + unit, fma(d_h, one - t, direct));
      }
    }
    step.team.wait();
    backward_z(step);
    step.team.wait();
    step.product(step.packed->u_back, 0, 3 * s.padded, nullptr, true);
    step.team.wait();
  }

  // d_z' by the second product, and from it the gates of z; and z' again for that product's weights.
  static void backward_z(const BackStep<T>& step) {
    const Sizes& s = step.sizes;
    const Vec<T> one = broadcast(T(1)), rate = broadcast(T(1) / step.dt);
    const index width = plain_width<T>;
    const Range range = step.team.share(plain_panels<T>(s.output));
    for (index p = range.begin; p < range.end; ++p)
      for_row_groups<tile_rows<T, plain>>(step.active, [&](auto group, index row) {
        constexpr int R = decltype(group)::value;
        Vec<T> acc[R][plain];
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < plain; ++v) acc[r][v] = broadcast(T(0));
        const RowBlock<R, T> rows(step.ring + row * step.ring_size + 3 * s.padded, step.ring_size);
        accumulate(acc, rows.row, step.packed->late_back + p * s.padded * width, s.padded);
        for (int r = 0; r < R; ++r)
          for (int v = 0; v < plain; ++v) {
            const index unit = p * width + v * w, count = larger(0, smaller(w, s.hidden - unit));
            if (unit >= s.padded) continue;
            if (count < w) acc[r][v] = keep_first(acc[r][v], count);
            const T* const saved = step.saved[row + r] + unit;
            const Vec<T> fast = load(saved), n = load(saved + 2 * s.padded);
            const Vec<T> before = load_first(step.c_prev[row + r] + unit, count);
            T* const cell = step.d_c + (row + r) * s.padded + unit;
            const auto [kept, arriving] = step.split_c(0, row + r, unit, count, load(cell));
            const Vec<T> d_z = arriving + acc[r][v];
            T* const ring = step.ring + (row + r) * step.ring_size + unit;
            store(ring, d_z * (n - before) * fast * (one - fast * rate));
            store(ring + 2 * s.padded, d_z * fast * (one - n * n));
            store(cell, fma(d_z, one - fast, kept));
            store(step.ring_late + (row + r) * step.late_size + unit, fma(fast, n - before, before));
          }
      });
  }
};

}  // namespace recurra::RECURRA_LEVEL
