// Long short-term memory; the equations are in src/recurra/cells/lstm.py.
//
// Slots i f g o, in panels, in saved memory (followed by c) and in the ring; peepholes i f o. With a
// projection the hidden output m = o ⊙ tanh(c) goes through a second product, h = R m.
#pragma once

#include "workspace.h"

namespace recurra::RECURRA_LEVEL {

template <class T, bool projects>
struct Lstm {
  using Element = T;
  static constexpr int w = lanes<T>;
  static constexpr int panel_units = w;
  static constexpr Slots x_slots{4, {0, 1, 2, 3}};
  static constexpr Slots u_slots = x_slots;
  static constexpr Slots h_slots = x_slots;
  static constexpr int x_vectors = 4;
  static constexpr int bias_stride = 4 * w;
  static constexpr int ring_slots = 4;
  static constexpr int first_x_slot = 0;
  static constexpr int late_slot = -1;
  static constexpr int parts = 1;
  static constexpr int c_slot = 4;
  static constexpr int diagonals = 3;
  static constexpr bool late_is_hr = false;
  static constexpr bool can_fuse = true;

  static index saved_slots(bool) { return 5; }
  static index hidden_buffer_size(const Sizes& s) { return projects ? s.padded : 0; }
  static index late_input_size(const Sizes&) { return 0; }
  static constexpr int late_width = plain_width<T>;
  static index late_panels(const Sizes& s) { return projects ? plain_panels<T>(s.output) : 0; }
  static index late_terms(const Sizes& s) { return s.hidden; }
  static index late_back_size(const Sizes& s) {
    return projects ? plain_panels<T>(s.hidden) * s.output * plain_width<T> : 0;
  }
  static index late_size(const Sizes& s) { return projects ? round_up(s.padded, plain_width<T>) : 0; }
  static index d_late_size(const Sizes& s) { return projects ? s.state : 0; }
  static index late_columns(const Sizes& s) { return s.hidden; }
  static index late_sum_size(const Sizes& s) { return s.hidden * s.state; }

  static void pack(const Sizes& s, const Direction& d, const Packed<T>& to, Team team) {
    const Range mine = team.share(s.panels);
    pack_interleaved(static_cast<const T*>(d.weight_ih), s.hidden, s.input, x_slots, mine.begin, mine.end, to.w.panels);
    pack_interleaved(static_cast<const T*>(d.weight_hh), s.hidden, s.output, u_slots, mine.begin, mine.end, to.u.panels);
    for (index p = mine.begin; p < mine.end; ++p)
      for (int slot = 0; slot < 4; ++slot)
        pack_bias<T>(d.bias_ih, d.bias_hh, slot, s.hidden, p * w, to.bias + p * bias_stride + slot * w);
    pack_diagonal(static_cast<const T*>(d.weight_diagonal), 3, s.hidden, s.padded, mine.begin * w, mine.end * w,
                  to.diagonal);
    if (!projects) return;
    const Range late = team.share(plain_panels<T>(s.output));
    pack_transposed(static_cast<const T*>(d.weight_hr), s.output, s.hidden, late.begin, late.end, to.u_late.panels);
  }

  static void pack_back(const Sizes& s, const Direction& d, const PackedBack<T>& to, Team team) {
    const Range mine = team.share(plain_panels<T>(s.output)), units = team.share(s.padded);
    pack_rows(static_cast<const T*>(d.weight_hh), s.hidden, s.padded, s.output, h_slots, mine.begin, mine.end, to.u_back);
    pack_diagonal(static_cast<const T*>(d.weight_diagonal), 3, s.hidden, s.padded, units.begin, units.end, to.diagonal);
    if (!projects) return;
    const Range late = team.share(plain_panels<T>(s.hidden));
    pack_rows(static_cast<const T*>(d.weight_hr), s.output, s.output, s.hidden, Slots{1, {0}}, late.begin, late.end,
              to.late_back);
  }

  template <class Storage>
  static void forward(const Step<T, Storage>& step) {
    using S = Step<T, Storage>;
    const Sizes& s = step.sizes;
    const Range range = step.team.share(s.panels);
    step.packed->u.with_ahead([&](auto ahead) {
      for (index p = range.begin; p < range.end; ++p)
        for_row_groups<S::template most_rows<4>>(step.active, [&](auto group, index row) {
          tile<decltype(group)::value, decltype(ahead)::value>(step, p, row);
        });
    });
    if (!projects) return;
    step.team.wait();
    const index width = plain_width<T>;
    const Range late = step.team.share(plain_panels<T>(s.output));
    for (index p = late.begin; p < late.end; ++p)
      for_row_groups<S::template most_rows<plain>>(step.active, [&](auto group, index row) {
        constexpr int R = decltype(group)::value;
        Vec<T> acc[R][plain];
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < plain; ++n) acc[r][n] = broadcast(T(0));
        const RowBlock<R, T> rows(step.hidden_buffer + row * s.padded, s.padded);
        step.packed->u_late.multiply(acc, rows.row, p, s.hidden);
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < plain; ++n) {
            const index unit = p * width + n * w;
            step.finish_h(row + r, unit, larger(0, smaller(w, s.output - unit)), acc[r][n]);
          }
      });
  }

  template <int R, bool ahead, class Storage>
  static void tile(const Step<T, Storage>& step, index p, index row) {
    const Sizes& s = step.sizes;
    const index unit = p * w, count = smaller(w, s.hidden - unit);
    Vec<T> acc[R][4];
    step.start(acc, p, row, bias_stride);
    const RowBlock<R, T> rows(step.h_in + row * s.state, s.state);
    step.packed->u.template multiply<ahead>(acc, rows.row, p, s.output, row, step.active);
    clear_missing(acc, count);
    RECURRA_UNROLL
    for (int r = 0; r < R; ++r) {
      T* const cell = step.c + (row + r) * s.padded + unit;
      const Vec<T> before = load(cell);
      if (step.diagonal) {
        acc[r][0] = fma(load(step.diagonal + unit), before, acc[r][0]);
        acc[r][1] = fma(load(step.diagonal + s.padded + unit), before, acc[r][1]);
      }
      const Vec<T> i = sigmoid(acc[r][0]), f = sigmoid(acc[r][1]), g = tanh(acc[r][2]);
      const Vec<T> stepped = fma(f, before, i * g);
      if (step.diagonal) acc[r][3] = fma(load(step.diagonal + 2 * s.padded + unit), stepped, acc[r][3]);
      const Vec<T> o = sigmoid(acc[r][3]);
      const Vec<T> m = o * tanh(stepped);
      Vec<T> c = stepped;
      if (step.has_zone_c()) c = step.zoned_c(0, row + r, unit, count, before, stepped);
      store(cell, c);
      if (step.saved) {
        T* const to = step.saved[row + r] + unit;
        step.look_ahead(to, p, 5);
        store(to, i);
        store(to + s.padded, f);
        store(to + 2 * s.padded, g);
        store(to + 3 * s.padded, o);
        store(to + 4 * s.padded, c);
      }
      if (projects) store(step.hidden_buffer + (row + r) * s.padded + unit, m);
      else step.finish_h(row + r, unit, count, m);
    }
  }

  static void backward(const BackStep<T>& step) {
    if (projects) backward_projection(step);
    const Sizes& s = step.sizes;
    const Vec<T> one = broadcast(T(1));
    const Range range = step.team.share(s.panels);
    for (index row = 0; row < step.active; ++row) {
      const T* const saved = step.saved[row];
      T* const ring = step.ring + row * step.ring_size;
      for (index p = range.begin; p < range.end; ++p) {
        const index unit = p * w, count = smaller(w, s.hidden - unit);
        step.look_ahead(row, p, 5);
        const Vec<T> i = load(saved + unit), f = load(saved + s.padded + unit), g = load(saved + 2 * s.padded + unit),
                     o = load(saved + 3 * s.padded + unit);
        const Vec<T> before = load_first(step.c_prev[row] + unit, count);
        const Vec<T> stepped = step.has_zone_c() ? fma(f, before, i * g) : load(saved + 4 * s.padded + unit);
        const Vec<T> t = tanh(stepped);
        Vec<T> d_m;
        if (projects) {
          d_m = load(step.part + row * s.padded + unit);
          if (count < w) d_m = keep_first(d_m, count);
          store(step.ring_late + row * step.late_size + unit, o * t);
        } else {
          const auto [direct, d_h] = step.split_h(row, unit, count, step.arriving(row, unit, count));
          if (step.has_zone_h()) store(step.d_h + row * s.state + unit, direct);
          d_m = d_h;
        }
        T* const cell = step.d_c + row * s.padded + unit;
        const auto [kept, arriving] = step.split_c(0, row, unit, count, load(cell));
        const Vec<T> d_o = d_m * t * o * (one - o);
        Vec<T> d_c = arriving + d_m * o * (one - t * t);
        if (step.diagonal) d_c = d_c + d_o * load(step.diagonal + 2 * s.padded + unit);
        const Vec<T> d_i = d_c * g * i * (one - i), d_f = d_c * before * f * (one - f);
        store(ring + unit, d_i);
        store(ring + s.padded + unit, d_f);
        store(ring + 2 * s.padded + unit, d_c * i * (one - g * g));
        store(ring + 3 * s.padded + unit, d_o);
        Vec<T> d_before = d_c * f + kept;
        if (step.diagonal) {
          d_before = d_before + d_i * load(step.diagonal + unit) + d_f * load(step.diagonal + s.padded + unit);
          T* const sums = step.d_diagonal + unit;
          store(sums, load(sums) + d_i * before);
          store(sums + s.padded, load(sums + s.padded) + d_f * before);
          store(sums + 2 * s.padded, load(sums + 2 * s.padded) + d_o * stepped);
        }
        store(cell, d_before);
      }
    }
    step.team.wait();
    step.product(step.packed->u_back, 0, 4 * s.padded, nullptr, step.has_zone_h());
    step.team.wait();
  }

  // d_m = d_h R into `part`; d_h itself is kept for the gradient of R.
  static void backward_projection(const BackStep<T>& step) {
    const Sizes& s = step.sizes;
    const Range columns = step.team.share(s.state / w);
    for (index row = 0; row < step.active; ++row)
      for (index v = columns.begin; v < columns.end; ++v) {
        const index unit = v * w, count = larger(0, smaller(w, s.output - unit));
        const auto [direct, d_h] = step.split_h(row, unit, count, step.arriving(row, unit, count));
        if (step.has_zone_h()) store(step.d_h + row * s.state + unit, direct);
        store(step.ring_d_late + row * step.d_late_size + unit, d_h);
      }
    step.team.wait();
    const index width = plain_width<T>;
    const Range range = step.team.share(plain_panels<T>(s.hidden));
    for (index p = range.begin; p < range.end; ++p)
      for_row_groups<tile_rows<T, plain>>(step.active, [&](auto group, index row) {
        constexpr int R = decltype(group)::value;
        Vec<T> acc[R][plain];
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < plain; ++n) acc[r][n] = broadcast(T(0));
        const RowBlock<R, T> rows(step.ring_d_late + row * step.d_late_size, step.d_late_size);
        accumulate(acc, rows.row, step.packed->late_back + p * s.output * width, s.output);
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < plain; ++n)
            if (p * width + n * w < s.padded) store(step.part + (row + r) * s.padded + p * width + n * w, acc[r][n]);
      });
    step.team.wait();
  }
};

}  // namespace recurra::RECURRA_LEVEL
