// The simple recurrent network; the equation is in src/recurra/cells/elman.py.
//
// One gate, in plain panels. Backward needs the stepped h alone: that is y, or with zoneout, where y
// is a mixture, the one saved slot.
#pragma once

#include "workspace.h"

namespace recurra::RECURRA_LEVEL {

template <class T, bool relu>
struct Elman {
  using Element = T;
  static constexpr int w = lanes<T>;
  static constexpr int panel_units = plain_width<T>;
  static constexpr Slots x_slots{1, {0}};
  static constexpr Slots u_slots = x_slots;
  static constexpr Slots h_slots = x_slots;
  static constexpr int x_vectors = plain;
  static constexpr int bias_stride = panel_units;
  static constexpr int ring_slots = 1;
  static constexpr int first_x_slot = 0;
  static constexpr int late_slot = -1;
  static constexpr int parts = 0;
  static constexpr int diagonals = 0;
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
    pack_transposed(static_cast<const T*>(d.weight_hh), s.hidden, s.output, mine.begin, mine.end, to.u.panels);
    for (index p = mine.begin; p < mine.end; ++p)
      for (int n = 0; n < plain; ++n)
        pack_bias<T>(d.bias_ih, d.bias_hh, 0, s.hidden, p * panel_units + n * w, to.bias + p * bias_stride + n * w);
  }

  static void pack_back(const Sizes& s, const Direction& d, const PackedBack<T>& to, Team team) {
    const Range mine = team.share(plain_panels<T>(s.output));
    pack_rows(static_cast<const T*>(d.weight_hh), s.hidden, s.padded, s.output, h_slots, mine.begin, mine.end, to.u_back);
  }

  template <class Storage>
  static void forward(const Step<T, Storage>& step) {
    using S = Step<T, Storage>;
    const Sizes& s = step.sizes;
    const Range range = step.team.share(s.panels);
    step.packed->u.with_ahead([&](auto ahead) {
      for (index p = range.begin; p < range.end; ++p)
        for_row_groups<S::template most_rows<plain>>(step.active, [&](auto group, index row) {
          constexpr int R = decltype(group)::value;
          Vec<T> acc[R][plain];
          step.start(acc, p, row, bias_stride);
          const RowBlock<R, T> rows(step.h_in + row * s.state, s.state);
          step.packed->u.template multiply<decltype(ahead)::value>(acc, rows.row, p, s.output, row, step.active);
          for (int r = 0; r < R; ++r)
            for (int n = 0; n < plain; ++n) {
              const index unit = p * panel_units + n * w;
              const index count = larger(0, smaller(w, s.hidden - unit));
              if (count < w) acc[r][n] = keep_first(acc[r][n], count);
              const Vec<T> h = relu ? positive_part(acc[r][n]) : tanh(acc[r][n]);
              if (step.saved && step.has_zone_h()) store(step.saved[row + r] + unit, h);
              step.finish_h(row + r, unit, count, h);
            }
        });
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
        if (step.has_zone_h()) store(step.d_h + row * s.state + unit, direct);
        store(step.ring + row * step.ring_size + unit, relu ? where_positive(h, d_h) : d_h * (one - h * h));
      }
    step.team.wait();
    step.product(step.packed->u_back, 0, s.padded, nullptr, step.has_zone_h());
    step.team.wait();
  }
};

}  // namespace recurra::RECURRA_LEVEL
