// sLSTM with one head; the equations are in src/recurra/cells/slstm.py.
//
// Slots i f z o in panels and in the ring. c holds c n m; i and f stand for the gates after their
// exponentials have been divided by exp(m'). Saved memory has i f z o, with a sigmoid forget gate the
// slope of log f, then c n. m is not needed on the way back: where m' came from shows in i and f, the
// one that it was taken from being exactly 1.
#pragma once

#include "workspace.h"

namespace recurra::RECURRA_LEVEL {

template <class T, bool is_exp>
struct Slstm {
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
  static constexpr int parts = 3;
  static constexpr int slope_slot = 4;
  static constexpr int c_slot = is_exp ? 4 : 5;
  static constexpr int diagonals = 0;
  static constexpr bool late_is_hr = false;
  static constexpr bool can_fuse = true;
  static constexpr int late_width = 0;

  static index saved_slots(bool) { return c_slot + 2; }
  static index hidden_buffer_size(const Sizes&) { return 0; }
  static index late_input_size(const Sizes&) { return 0; }
  static index late_panels(const Sizes&) { return 0; }
  static index late_terms(const Sizes&) { return 0; }
  static index late_back_size(const Sizes&) { return 0; }
  static index late_size(const Sizes&) { return 0; }
  static index d_late_size(const Sizes&) { return 0; }
  static index late_columns(const Sizes& s) { return s.output; }
  static index late_sum_size(const Sizes&) { return 0; }

  static void pack(const Sizes& s, const Direction& d, const Packed<T>& to, Team team) {
    const Range mine = team.share(s.panels);
    pack_interleaved(static_cast<const T*>(d.weight_ih), s.hidden, s.input, x_slots, mine.begin, mine.end, to.w.panels);
    pack_interleaved(static_cast<const T*>(d.weight_hh), s.hidden, s.output, u_slots, mine.begin, mine.end, to.u.panels);
    for (index p = mine.begin; p < mine.end; ++p)
      for (int slot = 0; slot < 4; ++slot)
        pack_bias<T>(d.bias_ih, nullptr, slot, s.hidden, p * w, to.bias + p * bias_stride + slot * w);
  }

  static void pack_back(const Sizes& s, const Direction& d, const PackedBack<T>& to, Team team) {
    const Range mine = team.share(plain_panels<T>(s.output));
    pack_rows(static_cast<const T*>(d.weight_hh), s.hidden, s.padded, s.output, h_slots, mine.begin, mine.end, to.u_back);
  }

  template <class Storage>
  static void forward(const Step<T, Storage>& step) {
    using S = Step<T, Storage>;
    const Range range = step.team.share(step.sizes.panels);
    step.packed->u.with_ahead([&](auto ahead) {
      for (index p = range.begin; p < range.end; ++p)
        for_row_groups<S::template most_rows<4>>(step.active, [&](auto group, index row) {
          tile<decltype(group)::value, decltype(ahead)::value>(step, p, row);
        });
    });
  }

  template <int R, bool ahead, class Storage>
  static void tile(const Step<T, Storage>& step, index p, index row) {
    const Sizes& s = step.sizes;
    const index unit = p * w, count = smaller(w, s.hidden - unit);
    const Vec<T> zero = broadcast(T(0));
    Vec<T> acc[R][4];
    step.start(acc, p, row, bias_stride);
    const RowBlock<R, T> rows(step.h_in + row * s.state, s.state);
    step.packed->u.template multiply<ahead>(acc, rows.row, p, s.output, row, step.active);
    clear_missing(acc, count);
    RECURRA_UNROLL
    for (int r = 0; r < R; ++r) {
      T* const cell = step.c + (row + r) * s.carried + unit;
      const Vec<T> before[parts] = {load(cell), load(cell + s.padded), load(cell + 2 * s.padded)};
      const LogSigmoid<T> log_f = log_of_forget_gate(acc[r][1]);
      const Vec<T> kept = log_f.value + before[2];
      const Vec<T> m = where_equal(before[1], zero, acc[r][0], maximum(kept, acc[r][0]));
      const Vec<T> i = exp_capped(acc[r][0] - m), f = exp_capped(kept - m), z = tanh(acc[r][2]),
                   o = sigmoid(acc[r][3]);
      const Vec<T> c = fma(i, z, f * before[0]), n = fma(f, before[1], i);
      Vec<T> held[parts] = {c, n, m};
      if (step.has_zone_c())
        for (int part = 0; part < parts; ++part)
          held[part] = step.zoned_c(part, row + r, unit, count, before[part], held[part]);
      for (int part = 0; part < parts; ++part) store(cell + part * s.padded, held[part]);
      if (step.saved) {
        T* const to = step.saved[row + r] + unit;
        step.look_ahead(to, p, c_slot + 2);
        store(to, i);
        store(to + s.padded, f);
        store(to + 2 * s.padded, z);
        store(to + 3 * s.padded, o);
        if (!is_exp) store(to + slope_slot * s.padded, log_f.slope);
        store(to + c_slot * s.padded, held[0]);
        store(to + (c_slot + 1) * s.padded, held[1]);
      }
      step.finish_h(row + r, unit, count, o * c / n);
    }
  }

  static RECURRA_INLINE LogSigmoid<T> log_of_forget_gate(const Vec<T>& raw) {
    if constexpr (is_exp) return {raw, broadcast(T(1))};
    else return log_sigmoid(raw);
  }

  static void backward(const BackStep<T>& step) {
    const Sizes& s = step.sizes;
    const Vec<T> zero = broadcast(T(0)), half = broadcast(T(0.5)), one = broadcast(T(1));
    const Range range = step.team.share(s.panels);
    for (index row = 0; row < step.active; ++row) {
      const T* const saved = step.saved[row];
      T* const ring = step.ring + row * step.ring_size;
      for (index p = range.begin; p < range.end; ++p) {
        const index unit = p * w, count = smaller(w, s.hidden - unit);
        step.look_ahead(row, p, c_slot + 2);
        const Vec<T> i = load(saved + unit), f = load(saved + s.padded + unit), z = load(saved + 2 * s.padded + unit),
                     o = load(saved + 3 * s.padded + unit);
        const T* const prev = step.c_prev[row] + unit;
        const Vec<T> c_before = load_first(prev, count), n_before = load_first(prev + step.c_stride, count);
        const Vec<T> c = fma(i, z, f * c_before), n = fma(f, n_before, i);
        const auto [direct, d_h] = step.split_h(row, unit, count, step.arriving(row, unit, count));
        if (step.has_zone_h()) store(step.d_h + row * s.state + unit, direct);
        T* const cell = step.d_c + row * s.carried + unit;
        const auto [c_old, c_arriving] = step.split_c(0, row, unit, count, load(cell));
        const auto [n_old, n_arriving] = step.split_c(1, row, unit, count, load(cell + s.padded));
        const auto [m_old, m_arriving] = step.split_c(2, row, unit, count, load(cell + 2 * s.padded));
        const Vec<T> ratio = c / n, scaled = d_h * o / n;
        const Vec<T> d_c = c_arriving + scaled, d_n = n_arriving - scaled * ratio;
        // At the exponents of i and f. That of f is cut off at 0 where n was 0, and then moves nothing.
        const Vec<T> d_i = (d_c * z + d_n) * i, d_f_uncut = (d_c * c_before + d_n * n_before) * f;
        const Vec<T> d_f = where_equal(n_before, zero, where_equal(f, one, zero, d_f_uncut), d_f_uncut);
        const Vec<T> d_m = m_arriving - d_i - d_f;
        // How much of m' was taken from i: all where n was 0, and half where both were equal.
        const Vec<T> largest = where_equal(i, one, where_equal(f, one, half, one), zero);
        const Vec<T> of_i = where_equal(n_before, zero, one, largest);
        const Vec<T> d_kept = fma(one - of_i, d_m, d_f);
        store(ring + unit, fma(of_i, d_m, d_i));
        store(ring + s.padded + unit, is_exp ? d_kept : d_kept * load(saved + slope_slot * s.padded + unit));
        store(ring + 2 * s.padded + unit, d_c * i * (one - z * z));
        store(ring + 3 * s.padded + unit, d_h * ratio * o * (one - o));
        store(cell, fma(d_c, f, c_old));
        store(cell + s.padded, fma(d_n, f, n_old));
        store(cell + 2 * s.padded, d_kept + m_old);
      }
    }
    step.team.wait();
    step.product(step.packed->u_back, 0, 4 * s.padded, nullptr, step.has_zone_h());
    step.team.wait();
  }
};

}  // namespace recurra::RECURRA_LEVEL
