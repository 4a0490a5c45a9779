// The loop over time, backward, and the gradients of weights, biases and input.
#pragma once

#include "forward.h"

namespace recurra::RECURRA_LEVEL {

template <class Cell>
class Backward {
  using T = typename Cell::Element;
  static constexpr int w = lanes<T>;

  // One side of a weight's gradient: packed input rows, and the sums they go to.
  struct Side {
    const T* rows = nullptr;
    Columns columns{};
    T* sums = nullptr;
    index stride = 0;
  };

 public:
  Backward(const Layer& layer, const Direction& direction, const Plan& plan, const Workspace<Cell>& work, int which,
           int slice, int rank, Team team)
      : layer_(layer),
        direction_(direction),
        sizes_(work.sizes),
        packed_(work.back[which]),
        buffers_(work.slices[which * plan.slices + slice]),
        scratch_(work.scratch[rank]),
        zeros_(work.zeros),
        ring_rows_(work.ring_rows),
        saved_stride_(saved_size<Cell>(layer)),
        c_offset_(layer.rebuild ? 0 : c_slot() * work.sizes.padded),
        team_(team),
        forward_(layer, direction, plan, work, which, slice, rank, team) {}

  void clear_sums() {
    const Sizes& s = sizes_;
    clear(buffers_.sums.x, s.input * Cell::x_slots.count * s.padded);
    clear(buffers_.sums.h, s.output * Cell::h_slots.count * s.padded);
    clear(buffers_.sums.late, Cell::late_sum_size(s));
    clear(buffers_.sums.bias, Cell::ring_slots * s.padded);
    clear(buffers_.sums.diagonal, Cell::diagonals * s.padded);
    team_.wait();
  }

  void run(const Pass& pass) {
    start(pass);
    if (direction_.d_x.data) clear_padding<T>(direction_.d_x, pass, layer_.time, sizes_.input, team_);
    const index steps = pass.rows ? pass.length[0] : 0;
    index entries = 0;
    forward_.begin_rebuilding(steps);
    for (index step = steps - 1; step >= 0; --step) {
      const index active = pass.active(step);
      if (entries + active > ring_rows_) {
        flush(entries);
        entries = 0;
      }
      const BackStep<T> now = tables(pass, step, active, entries);
      if (layer_.rebuild) forward_.rebuild(pass, step, active, h_prev_, c_prev_, now.c_stride);
      Cell::backward(now);
      if (layer_.clip != 0) clip(active);
      reset(pass, step, active);
      entries += active;
    }
    flush(entries);
    end(pass);
  }

 private:
  // Of c in what forward saves.
  static constexpr int c_slot() {
    if constexpr (Cell::parts > 0) return Cell::c_slot;
    else return 0;
  }

  void clear(T* sums, index count) const {
    if (!sums) return;
    const Range range = team_.share(count);
    fill(sums + range.begin, range.end - range.begin, T(0));
  }

  void start(const Pass& pass) {
    const Range range = team_.share(pass.rows);
    for (index r = range.begin; r < range.end; ++r) {
      copy_row(buffers_.d_h + r * sizes_.state, direction_.d_h_n, pass.row[r], sizes_.output, sizes_.state);
      copy_carried_in<Cell>(buffers_.d_c + r * sizes_.carried, direction_.d_c_n, pass.row[r], sizes_);
    }
    team_.wait();
  }

  void end(const Pass& pass) {
    const Range range = team_.share(pass.rows);
    for (index r = range.begin; r < range.end; ++r) {
      const index row = pass.row[r];
      if (direction_.d_h_0)
        copy(static_cast<T*>(direction_.d_h_0) + row * sizes_.output, buffers_.d_h + r * sizes_.state, sizes_.output);
      if (direction_.d_c_0) copy_carried_out<Cell>(direction_.d_c_0, row, buffers_.d_c + r * sizes_.carried, sizes_);
    }
    team_.wait();
  }

  // NaN passes through, to be seen.
  void clip(index active) const {
    const T limit = static_cast<T>(layer_.clip);
    const auto cut = [&](T* row, index size) {
      for (index u = 0; u < size; ++u) row[u] = row[u] > limit ? limit : row[u] < -limit ? -limit : row[u];
    };
    const Range range = team_.share(active);
    for (index r = range.begin; r < range.end; ++r) {
      cut(buffers_.d_h + r * sizes_.state, sizes_.output);
      for (int part = 0; part < Cell::parts; ++part)
        cut(buffers_.d_c + r * sizes_.carried + part * sizes_.padded, sizes_.hidden);
    }
    team_.wait();
  }

  // A state before which there was a reset has no gradient.
  void reset(const Pass& pass, index step, index active) {
    if (!layer_.reset.data) return;
    bool any = false;
    for (index r = 0; r < active; ++r) {
      if (!is_reset(layer_, pass.row[r], time_of(direction_, pass.length[r], step))) continue;
      any = true;
      if (team_.rank != 0) continue;
      fill(buffers_.d_h + r * sizes_.state, sizes_.state, T(0));
      if (Cell::parts) fill(buffers_.d_c + r * sizes_.carried, sizes_.carried, T(0));
    }
    if (any) team_.wait();
  }

  const T* saved(index row, index step) const {
    return static_cast<const T*>(direction_.saved) + (step * sizes_.batch + row) * saved_stride_;
  }

  // Where each row of this step reads and writes, and its entries from `entry` on.
  BackStep<T> tables(const Pass& pass, index step, index active, index entry) {
    const Direction& d = direction_;
    for (index r = 0; r < active; ++r) {
      const index row = pass.row[r], length = pass.length[r], time = time_of(d, length, step);
      saved_[r] = layer_.rebuild ? buffers_.rebuilt + r * step_size<Cell>(layer_) : saved(row, step);
      y_[r] = at<T>(d.y, row, time);
      if (d.d_y.data) d_y_[r] = at<T>(d.d_y, row, time);
      if (d.mask.data) mask_[r] = at<T>(d.mask, row, time);
      if (d.zone_h.data) zone_h_[r] = at<T>(d.zone_h, row, time);
      if (d.zone_c.data) zone_c_[r] = at<T>(d.zone_c, row, time);
      if (is_reset(layer_, row, time)) {
        h_prev_[r] = c_prev_[r] = zeros_;
      } else if (step == 0) {
        h_prev_[r] = d.h_0 ? static_cast<const T*>(d.h_0) + row * sizes_.output : zeros_;
        c_prev_[r] = d.c_0 ? static_cast<const T*>(d.c_0) + row * Cell::parts * sizes_.hidden : zeros_;
      } else {
        h_prev_[r] = at<T>(d.y, row, time_of(d, length, step - 1));
        if (Cell::parts) c_prev_[r] = saved(row, step - 1) + c_offset_;
      }
      scratch_.x[entry + r] = at<T>(layer_.x, row, time);
      scratch_.h[entry + r] = h_prev_[r];
      scratch_.mask[entry + r] = mask_[r];
      if (d.d_x.data) scratch_.d_x[entry + r] = at<T>(d.d_x, row, time);
    }
    BackStep<T> now{};
    now.sizes = sizes_;
    now.packed = &packed_;
    now.team = team_;
    now.active = active;
    now.d_y = d.d_y.data ? d_y_ : nullptr;
    now.saved = saved_;
    now.y = y_;
    now.h_prev = h_prev_;
    now.c_prev = c_prev_;
    now.mask = d.mask.data ? mask_ : nullptr;
    now.zone_h = d.zone_h.data ? zone_h_ : nullptr;
    now.zone_c = d.zone_c.data ? zone_c_ : nullptr;
    now.keep_h = static_cast<T>(d.keep_h);
    for (int part = 0; part < most_parts; ++part) now.keep_c[part] = static_cast<T>(d.keep_c[part]);
    now.zones_c = zones_c<T>(d);
    now.c_stride = step == 0 ? sizes_.hidden : sizes_.padded;
    now.diagonal = d.weight_diagonal ? packed_.diagonal : nullptr;
    now.dt = static_cast<T>(layer_.dt);
    if (step > 0) {
      now.to_saved_before = layer_.rebuild ? 0 : -sizes_.batch * saved_stride_;
      now.to_d_y_before = d.reverse ? d.d_y.time_stride : -d.d_y.time_stride;
    }
    now.d_diagonal = buffers_.sums.diagonal;
    now.d_h = buffers_.d_h;
    now.d_c = buffers_.d_c;
    now.part = buffers_.part;
    now.ring_size = Cell::ring_slots * sizes_.padded;
    now.late_size = Cell::late_size(sizes_);
    now.d_late_size = Cell::d_late_size(sizes_);
    now.ring = buffers_.ring + entry * now.ring_size;
    now.ring_late = buffers_.ring_late + entry * now.late_size;
    now.ring_d_late = buffers_.ring_d_late + entry * now.d_late_size;
    return now;
  }

  // Takes the ring's entries into the sums of weight gradients and into d_x.
  void flush(index entries) {
    if (entries == 0) return;
    const Sizes& s = sizes_;
    const Sums<T>& sums = buffers_.sums;
    Side x, h, late;
    if (sums.x) x = {buffers_.rows_x, columns_of(s.input), sums.x, Cell::x_slots.count * s.padded};
    if (sums.h) h = {buffers_.rows_h, columns_of(s.output), sums.h, Cell::h_slots.count * s.padded};
    if (sums.late) late = {buffers_.rows_late, columns_of(Cell::late_columns(s)), sums.late,
                           Cell::late_sum_size(s) / Cell::late_columns(s)};
    if (x.sums) pack_entries(x.columns, scratch_.x, nullptr, entries, buffers_.rows_x);
    if (h.sums)
      pack_entries(h.columns, scratch_.h, direction_.mask.data ? scratch_.mask : nullptr, entries, buffers_.rows_h);
    if (late.sums) {
      for (index e = 0; e < entries; ++e) scratch_.h[e] = buffers_.ring_late + e * Cell::late_size(s);
      pack_entries(late.columns, scratch_.h, nullptr, entries, buffers_.rows_late);
    }
    team_.wait();
    const index ring_size = Cell::ring_slots * s.padded, vectors = s.padded / w;
    const index pairs = (vectors + plain - 1) / plain;
    const Range range = team_.share(Cell::ring_slots * pairs);
    for (index n = range.begin; n < range.end; ++n) {
      const index slot = n / pairs, vector = n % pairs * plain, unit = vector * w;
      const auto side = [&](Side of, index first, index count) {
        if (slot < first || slot >= first + count) return Side{};
        if (of.sums) of.sums += (slot - first) * s.padded + unit;
        return of;
      };
      const Side sides[3] = {side(x, Cell::first_x_slot, Cell::x_slots.count), side(h, 0, Cell::h_slots.count),
                             side(late, Cell::late_slot, Cell::late_slot < 0 ? 0 : 1)};
      const T* const from = buffers_.ring + slot * s.padded + unit;
      T* const bias = sums.bias + slot * s.padded + unit;
      if (vectors - vector >= plain) strip<plain>(from, ring_size, entries, bias, sides);
      else strip<1>(from, ring_size, entries, bias, sides);
    }
    if (Cell::d_late_size(s) && late.sums) {
      const Range columns = team_.share(s.state / plain_width<T>);
      for (index p = columns.begin; p < columns.end; ++p) {
        Side sides[3] = {late, {}, {}};
        sides[0].sums += p * plain_width<T>;
        strip<plain>(buffers_.ring_d_late + p * plain_width<T>, Cell::d_late_size(s), entries, nullptr, sides);
      }
    }
    if (direction_.d_x.data) input_gradient(entries);
    team_.wait();
  }

  // Entry rows as tiles of columns: (tile, entry, columns of the tile).
  void pack_entries(Columns columns, const T* const* rows, const T* const* mask, index entries, T* to) const {
    switch (columns.tile) {
      case 2: return pack_tiles<2>(columns, rows, mask, entries, to);
      case 4: return pack_tiles<4>(columns, rows, mask, entries, to);
      case 6: return pack_tiles<6>(columns, rows, mask, entries, to);
      case 8: return pack_tiles<8>(columns, rows, mask, entries, to);
      case 10: return pack_tiles<10>(columns, rows, mask, entries, to);
      case 12: return pack_tiles<12>(columns, rows, mask, entries, to);
    }
  }

  template <int R>
  void pack_tiles(Columns columns, const T* const* rows, const T* const* mask, index entries, T* to) const {
    const Range range = team_.share(columns.tiles);
    for (index t = range.begin; t < range.end; ++t) {
      const index first = t * R, real = smaller(R, columns.count - first);
      T* block = to + t * entries * R;
      for (index e = 0; e < entries; ++e, block += R) {
        const T* const row = rows[e] + first;
        if (real == R && !mask) {
          for (int c = 0; c < R; ++c) block[c] = row[c];
          continue;
        }
        for (index c = 0; c < R; ++c) block[c] = c < real ? (mask ? row[c] * mask[e][first + c] : row[c]) : T(0);
      }
    }
  }

  // N vectors of one gate: copied side by side, summed into the bias, and multiplied by every side.
  template <int N>
  void strip(const T* from, index stride, index entries, T* bias, const Side (&sides)[3]) const {
    Vec<T> sum[N];
    for (int n = 0; n < N; ++n) sum[n] = broadcast(T(0));
    for (index e = 0; e < entries; ++e)
      for (int n = 0; n < N; ++n) {
        const Vec<T> value = load(from + e * stride + n * w);
        store(scratch_.strip + (e * N + n) * w, value);
        sum[n] = sum[n] + value;
      }
    if (bias)
      for (int n = 0; n < N; ++n) store(bias + n * w, load(bias + n * w) + sum[n]);
    for (const Side& side : sides) {
      if (!side.sums) continue;
      switch (side.columns.tile) {
        case 2: tiles<2, N>(side, entries); break;
        case 4: tiles<4, N>(side, entries); break;
        case 6: tiles<6, N>(side, entries); break;
        case 8: tiles<8, N>(side, entries); break;
        case 10: tiles<10, N>(side, entries); break;
        case 12: tiles<12, N>(side, entries); break;
      }
    }
  }

  template <int R, int N>
  void tiles(const Side& side, index entries) const {
    if constexpr (R * plain <= accumulators) {
      for (index t = 0; t < side.columns.tiles; ++t) {
        Vec<T> acc[R][N];
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < N; ++n) acc[r][n] = broadcast(T(0));
        accumulate_packed(acc, side.rows + t * entries * R, scratch_.strip, entries);
        const index real = smaller(R, side.columns.count - t * R);
        T* to = side.sums + t * R * side.stride;
        RECURRA_UNROLL
        for (int r = 0; r < R; ++r, to += side.stride) {
          if (r >= real) break;
          for (int n = 0; n < N; ++n) store(to + n * w, load(to + n * w) + acc[r][n]);
        }
      }
    }
  }

  void input_gradient(index entries) const {
    const Sizes& s = sizes_;
    constexpr int N = plain;
    const index width = plain_width<T>, size = Cell::x_slots.count * s.padded;
    const index ring_size = Cell::ring_slots * s.padded;
    const Range range = team_.share(plain_panels<T>(s.input));
    for (index p = range.begin; p < range.end; ++p)
      for_row_groups<tile_rows<T, N>>(entries, [&](auto group, index first) {
        constexpr int R = decltype(group)::value;
        Vec<T> acc[R][N];
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < N; ++n) acc[r][n] = broadcast(T(0));
        const RowBlock<R, T> rows(buffers_.ring + first * ring_size + Cell::first_x_slot * s.padded, ring_size);
        accumulate(acc, rows.row, packed_.w_back + p * size * width, size);
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < N; ++n) {
            const index column = p * width + n * w;
            if (column < s.input)
              store_first(scratch_.d_x[first + r] + column, acc[r][n], smaller(w, s.input - column));
          }
      });
  }

  const Layer& layer_;
  const Direction& direction_;
  const Sizes& sizes_;
  const PackedBack<T>& packed_;
  const typename Workspace<Cell>::Slice& buffers_;
  const typename Workspace<Cell>::Scratch& scratch_;
  const T* const zeros_;
  const index ring_rows_;
  const index saved_stride_;
  const index c_offset_;  // of c in what is saved
  const Team team_;
  Forward<Cell, Full<T>> forward_;  // at work where gates are rebuilt
  const T* saved_[pass_rows];
  const T* y_[pass_rows];
  const T* d_y_[pass_rows];
  const T* mask_[pass_rows] = {};
  const T* zone_h_[pass_rows];
  const T* zone_c_[pass_rows];
  const T* h_prev_[pass_rows];
  const T* c_prev_[pass_rows];
};

// Adds up the slices' sums and writes them in the order of the weight: to (gates * units, columns),
// from (columns, slots, padded units) of each slice.
template <class T, class SumsOf>
void write_weight(T* to, index units, index columns, index padded, Slots slots, int slices, const SumsOf& sums_of,
                  Team team) {
  constexpr int w = lanes<T>;
  constexpr index block = 16;
  const index vectors = (units + w - 1) / w, stride = slots.count * padded;
  const Range range = team.share(slots.count * vectors);
  for (index n = range.begin; n < range.end; ++n) {
    const index slot = n / vectors, unit = n % vectors * w, count = smaller(w, units - unit);
    T* const rows = to + (slots.gate[slot] * units + unit) * columns;
    for (index c = 0; c < columns; c += block) {
      alignas(64) T tile[block * w];
      const index width = smaller(block, columns - c);
      for (index k = 0; k < width; ++k) {
        const index from = (c + k) * stride + slot * padded + unit;
        Vec<T> sum = load(sums_of(0) + from);
        for (int slice = 1; slice < slices; ++slice) sum = sum + load(sums_of(slice) + from);
        store(tile + k * w, sum);
      }
      if (count == w && width == block) {
        for (index k = 0; k < block; k += w) transpose(tile + k * w, w, rows + c + k, columns);
        continue;
      }
      for (index u = 0; u < count; ++u)
        for (index k = 0; k < width; ++k) rows[u * columns + c + k] = tile[k * w + u];
    }
  }
}

template <class T, class SumsOf>
void write_bias(T* to, index units, index padded, index first_slot, Slots slots, int slices, const SumsOf& sums_of) {
  for (int slot = 0; slot < slots.count; ++slot)
    for (index u = 0; u < units; ++u) {
      T sum = 0;
      for (int slice = 0; slice < slices; ++slice) sum += sums_of(slice)[(first_slot + slot) * padded + u];
      to[slots.gate[slot] * units + u] = sum;
    }
}

template <class Cell>
void write_gradients(const Workspace<Cell>& work, const Direction& d, int which, int slices, Team team) {
  using T = typename Cell::Element;
  const Sizes& s = work.sizes;
  const auto* const of = work.slices + which * slices;
  if (d.d_weight_ih)
    write_weight(static_cast<T*>(d.d_weight_ih), s.hidden, s.input, s.padded, Cell::x_slots, slices,
                 [&](int slice) { return of[slice].sums.x; }, team);
  if (d.d_weight_hh)
    write_weight(static_cast<T*>(d.d_weight_hh), s.hidden, s.output, s.padded, Cell::h_slots, slices,
                 [&](int slice) { return of[slice].sums.h; }, team);
  const auto late = [&](int slice) { return of[slice].sums.late; };
  if (Cell::late_slot >= 0) {
    void* const to = Cell::late_is_hr ? d.d_weight_hr : d.d_weight_hh;
    const Slots slots{1, {Cell::late_is_hr ? 0 : Cell::late_slot}};
    if (to) write_weight(static_cast<T*>(to), s.hidden, s.output, s.padded, slots, slices, late, team);
  } else if (d.d_weight_hr) {
    write_weight(static_cast<T*>(d.d_weight_hr), s.output, s.hidden, s.state, Slots{1, {0}}, slices, late, team);
  }
  if (team.rank != 0) return;
  const auto bias = [&](int slice) { return of[slice].sums.bias; };
  if (d.d_weight_diagonal)
    write_bias(static_cast<T*>(d.d_weight_diagonal), s.hidden, s.padded, 0, Slots{Cell::diagonals, {0, 1, 2}}, slices,
               [&](int slice) { return of[slice].sums.diagonal; });
  if (d.d_bias_ih)
    write_bias(static_cast<T*>(d.d_bias_ih), s.hidden, s.padded, Cell::first_x_slot, Cell::x_slots, slices, bias);
  if (d.d_bias_hh)
    write_bias(static_cast<T*>(d.d_bias_hh), s.hidden, s.padded, 0, Cell::h_slots, slices, bias);
  if (d.d_bias_hh && Cell::late_slot >= 0)
    write_bias(static_cast<T*>(d.d_bias_hh), s.hidden, s.padded, Cell::late_slot, Slots{1, {Cell::late_slot}}, slices,
               bias);
}

// What thread `rank` of plan.threads does of a call.
template <class Cell>
void run_backward(const Layer& layer, const Plan& plan, const char* memory, int rank) {
  using T = typename Cell::Element;
  const auto& work = *reinterpret_cast<const Workspace<Cell>*>(memory);
  const Sizes& s = work.sizes;
  const Team everybody{rank, plan.threads, plan.everybody};
  for (int d = 0; d < layer.directions; ++d) {
    const Direction& direction = layer.direction[d];
    Cell::pack_back(s, direction, work.back[d], everybody);
    if (layer.rebuild) Cell::pack(s, direction, work.packed[d], everybody);
    if (!direction.d_x.data) continue;
    const Range mine = everybody.share(plain_panels<T>(s.input));
    pack_rows(static_cast<const T*>(direction.weight_ih), s.hidden, s.padded, s.input, Cell::x_slots, mine.begin,
              mine.end, work.back[d].w_back);
  }
  everybody.wait();
  const int team = rank / plan.team, teams = plan.threads / plan.team;
  const Team mine{rank % plan.team, plan.team, plan.teams + team};
  for (int n = team; n < layer.directions * plan.slices; n += teams) {
    const int d = n / plan.slices, slice = n % plan.slices;
    Backward<Cell> backward(layer, layer.direction[d], plan, work, d, slice, rank, mine);
    backward.clear_sums();
    for_passes(plan, slice, [&](const Pass& pass) { backward.run(pass); });
  }
  everybody.wait();
  for (int d = 0; d < layer.directions; ++d) write_gradients(work, layer.direction[d], d, plan.slices, everybody);
}

}  // namespace recurra::RECURRA_LEVEL
