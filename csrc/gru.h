// Gated recurrent unit, both forms; the equations are in src/recurra/cells/gru.py.
//
// Slots r z n in panels. `Gru` has the reset gate after the product: the two parts of n are summed
// apart, and U_n h + c_n is saved as a fourth slot. Its ring holds d(U_n h), dr, dz, dn, so that the
// side of h is the first three slots and the side of x the last three. `GruResetBefore` needs two
// products, r and z first.
#pragma once

#include "workspace.h"

namespace recurra::RECURRA_LEVEL {

template <class T>
struct Gru {
  using Element = T;
  static constexpr int w = lanes<T>;
  static constexpr int panel_units = w;
  static constexpr Slots x_slots{3, {0, 1, 2}};
  static constexpr Slots u_slots = x_slots;
  static constexpr Slots h_slots{3, {2, 0, 1}};
  static constexpr int x_vectors = 3;
  static constexpr int bias_stride = 4 * w;  // r, z and the two parts of n
  static constexpr int ring_slots = 4;
  static constexpr int first_x_slot = 1;
  static constexpr int late_slot = -1;
  static constexpr int parts = 0;
  static constexpr int diagonals = 0;
  static constexpr bool late_is_hr = false;
  static constexpr bool can_fuse = true;

  static index saved_slots(bool) { return 4; }
  static index hidden_buffer_size(const Sizes&) { return 0; }
  static index late_input_size(const Sizes&) { return 0; }
  static constexpr int late_width = 0;
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
    for (index p = mine.begin; p < mine.end; ++p) {
      T* const bias = to.bias + p * bias_stride;
      pack_bias<T>(d.bias_ih, d.bias_hh, 0, s.hidden, p * w, bias);
      pack_bias<T>(d.bias_ih, d.bias_hh, 1, s.hidden, p * w, bias + w);
      pack_bias<T>(d.bias_ih, nullptr, 2, s.hidden, p * w, bias + 2 * w);
      pack_bias<T>(nullptr, d.bias_hh, 2, s.hidden, p * w, bias + 3 * w);
    }
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
        for_row_groups<S::template most_rows<3>>(step.active, [&](auto group, index row) {
          tile<decltype(group)::value, decltype(ahead)::value>(step, p, row);
        });
    });
  }

  template <int R, bool ahead, class Storage>
  static void tile(const Step<T, Storage>& step, index p, index row) {
    const Sizes& s = step.sizes;
    const index unit = p * w, count = smaller(w, s.hidden - unit);
    Vec<T> acc[R][3];
    step.start(acc, p, row, bias_stride);
    const Vec<T> c_n = load(step.packed->bias + p * bias_stride + 3 * w);
    // The part of x waits in memory, where it costs the product no registers.
    T* const from_x = step.x_parts;
    for (int r = 0; r < R; ++r) {
      store(from_x + r * w, count < w ? keep_first(acc[r][2], count) : acc[r][2]);
      acc[r][2] = c_n;
    }
    const RowBlock<R, T> rows(step.h_in + row * s.state, s.state);
    step.packed->u.template multiply<ahead>(acc, rows.row, p, s.output, row, step.active);
    clear_missing(acc, count);
    RECURRA_UNROLL
    for (int q = 0; q < R; ++q) {
      const Vec<T> r = sigmoid(acc[q][0]), z = sigmoid(acc[q][1]), from_h = acc[q][2];
      const Vec<T> n = tanh(fma(r, from_h, load(from_x + q * w)));
      const Vec<T> before = load(step.h + (row + q) * s.state + unit);
      if (step.saved) {
        T* const to = step.saved[row + q] + unit;
        step.look_ahead(to, p, 4);
        store(to, r);
        store(to + s.padded, z);
        store(to + 2 * s.padded, n);
        store(to + 3 * s.padded, from_h);
      }
      step.finish_h(row + q, unit, count, fma(z, before - n, n));
    }
  }

  static void backward(const BackStep<T>& step) {
    const Sizes& s = step.sizes;
    const Vec<T> one = broadcast(T(1));
    const Range range = step.team.share(s.panels);
    for (index row = 0; row < step.active; ++row) {
      const T* const saved = step.saved[row];
      T* const ring = step.ring + row * step.ring_size;
      for (index p = range.begin; p < range.end; ++p) {
        const index unit = p * w, count = smaller(w, s.hidden - unit);
        step.look_ahead(row, p, 4);
        const Vec<T> r = load(saved + unit), z = load(saved + s.padded + unit), n = load(saved + 2 * s.padded + unit),
                     from_h = load(saved + 3 * s.padded + unit);
        const Vec<T> before = load_first(step.h_prev[row] + unit, count);
        const auto [direct, d_h] = step.split_h(row, unit, count, step.arriving(row, unit, count));
        const Vec<T> d_n = d_h * (one - z) * (one - n * n);
        store(ring + unit, d_n * r);
        store(ring + s.padded + unit, d_n * from_h * r * (one - r));
        store(ring + 2 * s.padded + unit, d_h * (before - n) * z * (one - z));
        store(ring + 3 * s.padded + unit, d_n);
        store(step.d_h + row * s.state + unit, fma(d_h, z, direct));
      }
    }
    step.team.wait();
    step.product(step.packed->u_back, 0, 3 * s.padded, nullptr, true);
    step.team.wait();
  }
};

template <class T>
struct GruResetBefore {
  using Element = T;
  static constexpr int w = lanes<T>;
  static constexpr int panel_units = w;
  static constexpr Slots x_slots{3, {0, 1, 2}};
  static constexpr Slots u_slots{2, {0, 1}};
  static constexpr Slots h_slots{2, {0, 1}};
  static constexpr Slots late_slots{1, {2}};
  static constexpr int x_vectors = 3;
  static constexpr int bias_stride = 3 * w;
  static constexpr int ring_slots = 3;
  static constexpr int first_x_slot = 0;
  static constexpr int late_slot = 2;  // whose product has another input
  static constexpr int parts = 0;
  static constexpr int diagonals = 0;
  static constexpr bool late_is_hr = false;
  static constexpr bool can_fuse = false;  // n starts in the second product of a step

  static index saved_slots(bool) { return 3; }
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
    const T* const u = static_cast<const T*>(d.weight_hh);
    pack_interleaved(static_cast<const T*>(d.weight_ih), s.hidden, s.input, x_slots, mine.begin, mine.end, to.w.panels);
    pack_interleaved(u, s.hidden, s.output, u_slots, mine.begin, mine.end, to.u.panels);
    pack_interleaved(u, s.hidden, s.output, late_slots, mine.begin, mine.end, to.u_late.panels);
    for (index p = mine.begin; p < mine.end; ++p)
      for (int slot = 0; slot < 3; ++slot)
        pack_bias<T>(d.bias_ih, d.bias_hh, slot, s.hidden, p * w, to.bias + p * bias_stride + slot * w);
  }

  static void pack_back(const Sizes& s, const Direction& d, const PackedBack<T>& to, Team team) {
    const Range mine = team.share(plain_panels<T>(s.output));
    const T* const u = static_cast<const T*>(d.weight_hh);
    pack_rows(u, s.hidden, s.padded, s.output, h_slots, mine.begin, mine.end, to.u_back);
    pack_rows(u, s.hidden, s.padded, s.output, late_slots, mine.begin, mine.end, to.late_back);
  }

  template <class Storage>
  static void forward(const Step<T, Storage>& step) {
    using S = Step<T, Storage>;
    const Sizes& s = step.sizes;
    const Range range = step.team.share(s.panels);
    for (index p = range.begin; p < range.end; ++p)
      for_row_groups<S::template most_rows<2>>(step.active, [&](auto group, index row) {
        constexpr int R = decltype(group)::value;
        const index unit = p * w;
        Vec<T> acc[R][2];
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < 2; ++n)
            acc[r][n] = load(step.projected + (row + r) * s.projected + p * 3 * w + n * w);
        const RowBlock<R, T> rows(step.h_in + row * s.state, s.state);
        step.packed->u.multiply(acc, rows.row, p, s.output);
        clear_missing(acc, s.hidden - unit);
        for (int q = 0; q < R; ++q) {
          const Vec<T> r = sigmoid(acc[q][0]), z = sigmoid(acc[q][1]);
          store(step.hidden_buffer + (row + q) * s.padded + unit, z);
          store(step.late_input + (row + q) * s.state + unit, r * load(step.h_in + (row + q) * s.state + unit));
          if (step.saved) {
            store(step.saved[row + q] + unit, r);
            store(step.saved[row + q] + s.padded + unit, z);
          }
        }
      });
    step.team.wait();
    for (index p = range.begin; p < range.end; ++p)
      for_row_groups<S::template most_rows<1>>(step.active, [&](auto group, index row) {
        constexpr int R = decltype(group)::value;
        const index unit = p * w, count = smaller(w, s.hidden - unit);
        Vec<T> acc[R][1];
        for (int r = 0; r < R; ++r) acc[r][0] = load(step.projected + (row + r) * s.projected + p * 3 * w + 2 * w);
        const RowBlock<R, T> rows(step.late_input + row * s.state, s.state);
        step.packed->u_late.multiply(acc, rows.row, p, s.output);
        clear_missing(acc, count);
        for (int q = 0; q < R; ++q) {
          const Vec<T> n = tanh(acc[q][0]), z = load(step.hidden_buffer + (row + q) * s.padded + unit);
          if (step.saved) store(step.saved[row + q] + 2 * s.padded + unit, n);
          const Vec<T> before = load(step.h + (row + q) * s.state + unit);
          step.finish_h(row + q, unit, count, fma(z, before - n, n));
        }
      });
  }

  static void backward(const BackStep<T>& step) {
    const Sizes& s = step.sizes;
    const Vec<T> one = broadcast(T(1));
    const Range range = step.team.share(s.panels);
    for (index row = 0; row < step.active; ++row) {
      const T* const saved = step.saved[row];
      T* const ring = step.ring + row * step.ring_size;
      for (index p = range.begin; p < range.end; ++p) {
        const index unit = p * w, count = smaller(w, s.hidden - unit);
        step.look_ahead(row, p, 3);
        const Vec<T> z = load(saved + s.padded + unit), n = load(saved + 2 * s.padded + unit);
        const Vec<T> before = load_first(step.h_prev[row] + unit, count);
        const auto [direct, d_h] = step.split_h(row, unit, count, step.arriving(row, unit, count));
        store(ring + s.padded + unit, d_h * (before - n) * z * (one - z));
        store(ring + 2 * s.padded + unit, d_h * (one - z) * (one - n * n));
        store(step.d_h + row * s.state + unit, fma(d_h, z, direct));
      }
    }
    step.team.wait();
    reset_gate(step);
    step.team.wait();
    step.product(step.packed->u_back, 0, 2 * s.padded, step.part, true);
    step.team.wait();
  }

  // d(r ⊙ h) = dn U_n, and from it dr, what goes on to h, and r ⊙ h again for the gradient of U_n.
  static void reset_gate(const BackStep<T>& step) {
    const Sizes& s = step.sizes;
    const Vec<T> one = broadcast(T(1));
    const index width = plain_width<T>;
    const Range range = step.team.share(plain_panels<T>(s.output));
    for (index p = range.begin; p < range.end; ++p)
      for_row_groups<tile_rows<T, plain>>(step.active, [&](auto group, index row) {
        constexpr int R = decltype(group)::value;
        Vec<T> acc[R][plain];
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < plain; ++n) acc[r][n] = broadcast(T(0));
        const RowBlock<R, T> rows(step.ring + row * step.ring_size + 2 * s.padded, step.ring_size);
        accumulate(acc, rows.row, step.packed->late_back + p * s.padded * width, s.padded);
        for (int q = 0; q < R; ++q)
          for (int v = 0; v < plain; ++v) {
            const index unit = p * width + v * w, count = larger(0, smaller(w, s.hidden - unit));
            if (unit >= s.padded) continue;
            if (count < w) acc[q][v] = keep_first(acc[q][v], count);
            const Vec<T> r = load(step.saved[row + q] + unit);
            Vec<T> h = load_first(step.h_prev[row + q] + unit, count);
            if (step.mask) h = h * load_first(step.mask[row + q] + unit, count);
            store(step.ring + (row + q) * step.ring_size + unit, acc[q][v] * h * r * (one - r));
            store(step.part + (row + q) * s.state + unit, acc[q][v] * r);
            store(step.ring_late + (row + q) * step.late_size + unit, r * h);
          }
      });
  }
};

}  // namespace recurra::RECURRA_LEVEL
