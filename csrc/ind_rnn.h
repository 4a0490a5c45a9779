// The independently recurrent network; the equation is in src/recurra/cells/ind_rnn.py.
//
// Elman's one gate with a vector of recurrent weights in place of the matrix, so there is no product
// from one step to the next.
#pragma once

#include "workspace.h"

namespace recurra::RECURRA_LEVEL {

template <class T, bool relu>
struct IndRnn {
  using Element = T;
  static constexpr int w = lanes<T>;
  static constexpr int panel_units = plain_width<T>;
  static constexpr Slots x_slots{1, {0}};
  static constexpr Slots u_slots{0, {}};
  static constexpr Slots h_slots{0, {}};
  static constexpr int x_vectors = plain;
  static constexpr int bias_stride = panel_units;
  static constexpr int ring_slots = 1;
  static constexpr int first_x_slot = 0;
  static constexpr int late_slot = -1;
  static constexpr int parts = 0;
  static constexpr int diagonals = 1;
  static constexpr bool late_is_hr = false;
  static constexpr bool can_fuse = true;

  static index saved_slots(bool zone) { return zone ? 1 : 0; }
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
    pack_transposed(static_cast<const T*>(d.weight_ih), s.hidden, s.input, mine.begin, mine.end, to.w.panels);
    for (index p = mine.begin; p < mine.end; ++p)
      for (int n = 0; n < plain; ++n)
        pack_bias<T>(d.bias_ih, nullptr, 0, s.hidden, p * panel_units + n * w, to.bias + p * bias_stride + n * w);
    pack_diagonal(static_cast<const T*>(d.weight_diagonal), 1, s.hidden, s.padded, mine.begin * panel_units,
                  mine.end * panel_units, to.diagonal);
  }

  static void pack_back(const Sizes& s, const Direction& d, const PackedBack<T>& to, Team team) {
    const Range units = team.share(s.padded);
    pack_diagonal(static_cast<const T*>(d.weight_diagonal), 1, s.hidden, s.padded, units.begin, units.end, to.diagonal);
  }

  template <class Storage>
  static void forward(const Step<T, Storage>& step) {
    using S = Step<T, Storage>;
    const Sizes& s = step.sizes;
    const Range range = step.team.share(s.panels);
    for (index p = range.begin; p < range.end; ++p)
      for_row_groups<S::template most_rows<plain>>(step.active, [&](auto group, index row) {
        constexpr int R = decltype(group)::value;
        Vec<T> acc[R][plain];
        step.start(acc, p, row, bias_stride);
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < plain; ++n) {
            const index unit = p * panel_units + n * w;
            const index count = larger(0, smaller(w, s.hidden - unit));
            const Vec<T> before = load(step.h_in + (row + r) * s.state + unit);
            Vec<T> sum = fma(load(step.diagonal + unit), before, acc[r][n]);
            if (count < w) sum = keep_first(sum, count);
            const Vec<T> h = relu ? positive_part(sum) : tanh(sum);
            if (step.saved && step.has_zone_h()) store(step.saved[row + r] + unit, h);
            step.finish_h(row + r, unit, count, h);
          }
      });
  }

  static void backward(const BackStep<T>& step) {
    const Sizes& s = step.sizes;
    const Vec<T> one = broadcast(T(1));
    const Range range = step.team.share(s.padded / w);
    for (index row = 0; row < step.active; ++row)
      for (index v = range.begin; v < range.end; ++v) {
        const index unit = v * w, count = larger(0, smaller(w, s.hidden - unit));
        step.look_ahead(row, v, step.has_zone_h() ? 1 : 0);
        const auto [direct, d_h] = step.split_h(row, unit, count, step.arriving(row, unit, count));
        const Vec<T> h = step.has_zone_h() ? load(step.saved[row] + unit) : load_first(step.y[row] + unit, count);
        const Vec<T> d_sum = relu ? where_positive(h, d_h) : d_h * (one - h * h);
        Vec<T> before = load_first(step.h_prev[row] + unit, count), factor = load(step.diagonal + unit);
        if (step.mask) {
          const Vec<T> mask = load_first(step.mask[row] + unit, count);
          before = before * mask;
          factor = factor * mask;
        }
        store(step.ring + row * step.ring_size + unit, d_sum);
        store(step.d_diagonal + unit, load(step.d_diagonal + unit) + d_sum * before);
        store(step.d_h + row * s.state + unit, d_sum * factor + direct);
      }
    step.team.wait();
  }
};

}  // namespace recurra::RECURRA_LEVEL
