// The loop over time, forward.
#pragma once

#include "workspace.h"

namespace recurra::RECURRA_LEVEL {

template <class Cell, class Storage>
class Forward {
  using T = typename Cell::Element;

 public:
  Forward(const Layer& layer, const Direction& direction, const Plan& plan, const Workspace<Cell, Storage>& work, int which,
          int slice, int rank, Team team)
      : layer_(layer),
        direction_(direction),
        sizes_(work.sizes),
        packed_(work.packed[which]),
        buffers_(work.slices[which * plan.slices + slice]),
        scratch_(work.scratch[rank]),
        entries_(work.entries),
        saved_stride_(direction.saved ? saved_size<Cell>(layer) : 0),
        team_(team) {}

  void run(const Pass& pass) {
    T* h = buffers_.h;
    T* h_next = buffers_.h_next;
    start(pass, h);
    clear_padding<T>(direction_.y, pass, layer_.time, sizes_.output, team_);
    const index steps = pass.rows ? pass.length[0] : 0;
    index active = pass.rows, chunk_end = 0, entry = 0;
    for (index step = 0; step < steps; ++step) {
      const index real = pass.active(step);
      end(pass, real, active, h);
      active = real;
      if (entries_ && step == chunk_end) {
        chunk_end = project(pass, step, steps, 1);
        entry = 0;
      }
      reset(pass, step, active, h);
      Step<T, Storage> now = tables(pass, step, active);
      now.projected = entries_ ? buffers_.projected + entry * sizes_.projected : nullptr;
      now.h = h;
      now.h_in = mask(pass, step, active, h);
      now.h_next = h_next;
      Cell::forward(now);
      if (Cell::parts && layer_.rebuild && direction_.saved) save_c(pass, step, active);
      team_.wait();
      T* const old = h;
      h = h_next;
      h_next = old;
      entry += active;
    }
    end(pass, 0, active, h);
    team_.wait();  // before the next pass writes into the same buffers
  }

  // On the way back, step after step from the last one on: what Cell::forward saves of a step, in the
  // slice's `rebuilt`, from the states before it.
  void rebuild(const Pass& pass, index step, index active, const T* const* h_prev, const T* const* c_prev,
               index c_stride) {
    const Range range = team_.share(active);
    for (index r = range.begin; r < range.end; ++r) {
      copy_row(buffers_.h + r * sizes_.state, h_prev[r], 0, sizes_.output, sizes_.state);
      for (int part = 0; part < Cell::parts; ++part)
        copy_row(buffers_.c + r * sizes_.carried + part * sizes_.padded, c_prev[r] + part * c_stride, 0, sizes_.hidden,
                 sizes_.padded);
    }
    team_.wait();
    if (entries_ && step <= chunk_end_) {
      chunk_end_ = project(pass, step, -1, -1);
      chunk_entry_ = 0;
    }
    Step<T, Storage> now = tables(pass, step, active);
    for (index r = 0; r < active; ++r) {
      y_[r] = buffers_.rebuilt_y + r * sizes_.state;
      saved_[r] = buffers_.rebuilt + r * step_size<Cell>(layer_);
    }
    now.saved = saved_;
    now.projected = entries_ ? buffers_.projected + chunk_entry_ * sizes_.projected : nullptr;
    now.h = buffers_.h;
    now.h_in = mask(pass, step, active, buffers_.h);
    now.h_next = buffers_.h_next;
    Cell::forward(now);
    team_.wait();
    chunk_entry_ += active;
  }

  // A pass begins: nothing of it is projected yet.
  void begin_rebuilding(index steps) { chunk_end_ = steps; }

 private:
  // The initial state, in the buffers of this pass.
  void start(const Pass& pass, T* h) {
    const Range range = team_.share(pass.rows);
    for (index r = range.begin; r < range.end; ++r) {
      copy_row(h + r * sizes_.state, direction_.h_0, pass.row[r], sizes_.output, sizes_.state);
      copy_carried_in<Cell>(buffers_.c + r * sizes_.carried, direction_.c_0, pass.row[r], sizes_);
    }
    team_.wait();
  }

  // Hands back the state of the rows [from, to), which have no further step.
  void end(const Pass& pass, index from, index to, const T* h) const {
    if (team_.rank != 0) return;
    for (index r = from; r < to; ++r) {
      const index row = pass.row[r];
      copy(static_cast<T*>(direction_.h_n) + row * sizes_.output, h + r * sizes_.state, sizes_.output);
      copy_carried_out<Cell>(direction_.c_n, row, buffers_.c + r * sizes_.carried, sizes_);
    }
  }

  // What this thread has computed of c, which no other one writes to.
  void save_c(const Pass& pass, index step, index active) const {
    const Range panels = team_.share(sizes_.panels);
    const index from = panels.begin * Cell::panel_units, count = panels.end * Cell::panel_units - from;
    for (index r = 0; r < active; ++r) {
      T* const to = static_cast<T*>(direction_.saved) + (step * sizes_.batch + pass.row[r]) * saved_stride_ + from;
      for (int part = 0; part < Cell::parts; ++part)
        copy(to + part * sizes_.padded, buffers_.c + r * sizes_.carried + part * sizes_.padded + from, count);
    }
  }

  // Bias and input part of the gates of the steps from `step` to before `end`, as many as the chunk
  // holds, counting up (by = 1) or down (-1).
  index project(const Pass& pass, index step, index end, index by) {
    index count = 0;
    for (; step != end; step += by) {
      const index active = pass.active(step);
      if (count + active > entries_) break;
      for (index r = 0; r < active; ++r)
        scratch_.chunk_x[count + r] = at<T>(layer_.x, pass.row[r], time_of(direction_, pass.length[r], step));
      count += active;
    }
    constexpr int N = Cell::x_vectors;
    const index width = sizes_.panel_width;
    // The panels that this thread projects are those whose gates it computes: no need to wait.
    const Range range = team_.share(sizes_.panels);
    for (index p = range.begin; p < range.end; ++p) {
      for_row_groups<Step<T, Storage>::template most_rows<N>>(count, [&](auto group, index first) {
        constexpr int R = decltype(group)::value;
        Vec<T> acc[R][N];
        const T* rows[R];
        for (int r = 0; r < R; ++r) {
          rows[r] = scratch_.chunk_x[first + r];
          for (int n = 0; n < N; ++n) acc[r][n] = load(packed_.bias + p * Cell::bias_stride + n * lanes<T>);
        }
        packed_.w.multiply(acc, rows, p, sizes_.input);
        for (int r = 0; r < R; ++r)
          for (int n = 0; n < N; ++n)
            store(buffers_.projected + (first + r) * sizes_.projected + p * width + n * lanes<T>, acc[r][n]);
      });
    }
    return step;
  }

  void reset(const Pass& pass, index step, index active, T* h) {
    if (!layer_.reset.data) return;
    bool any = false;
    for (index r = 0; r < active; ++r) {
      if (!is_reset(layer_, pass.row[r], time_of(direction_, pass.length[r], step))) continue;
      any = true;
      if (team_.rank != 0) continue;
      fill(h + r * sizes_.state, sizes_.state, T(0));
      if (Cell::parts) fill(buffers_.c + r * sizes_.carried, sizes_.carried, T(0));
    }
    if (any) team_.wait();
  }

  const T* mask(const Pass& pass, index step, index active, const T* h) {
    if (!direction_.mask.data) return h;
    const Range range = team_.share(active);
    for (index r = range.begin; r < range.end; ++r) {
      const T* factor = at<T>(direction_.mask, pass.row[r], time_of(direction_, pass.length[r], step));
      for (index u = 0; u < sizes_.output; ++u)
        buffers_.h_in[r * sizes_.state + u] = h[r * sizes_.state + u] * factor[u];
    }
    team_.wait();
    return buffers_.h_in;
  }

  bool saves() const { return direction_.saved && !layer_.rebuild; }

  // Where each row of this step reads and writes.
  Step<T, Storage> tables(const Pass& pass, index step, index active) {
    const Direction& d = direction_;
    for (index r = 0; r < active; ++r) {
      const index row = pass.row[r], time = time_of(d, pass.length[r], step);
      y_[r] = at<T>(d.y, row, time);
      if (!entries_) x_[r] = at<T>(layer_.x, row, time);
      if (saves()) saved_[r] = static_cast<T*>(d.saved) + (step * sizes_.batch + row) * saved_stride_;
      if (d.zone_h.data) zone_h_[r] = at<T>(d.zone_h, row, time);
      if (d.zone_c.data) zone_c_[r] = at<T>(d.zone_c, row, time);
    }
    Step<T, Storage> now{};
    now.sizes = sizes_;
    now.packed = &packed_;
    now.team = team_;
    now.active = active;
    now.x = entries_ ? nullptr : x_;
    now.c = buffers_.c;
    now.hidden_buffer = buffers_.hidden_buffer;
    now.late_input = buffers_.late_input;
    now.y = y_;
    now.saved = saves() ? saved_ : nullptr;
    now.zone_h = d.zone_h.data ? zone_h_ : nullptr;
    now.zone_c = d.zone_c.data ? zone_c_ : nullptr;
    now.keep_h = static_cast<T>(d.keep_h);
    for (int part = 0; part < most_parts; ++part) now.keep_c[part] = static_cast<T>(d.keep_c[part]);
    now.zones_c = zones_c<T>(d);
    now.diagonal = d.weight_diagonal ? packed_.diagonal : nullptr;
    now.dt = static_cast<T>(layer_.dt);
    now.x_parts = scratch_.x_parts;
    return now;
  }

  const Layer& layer_;
  const Direction& direction_;
  const Sizes& sizes_;
  const Packed<T, Storage>& packed_;
  const typename Workspace<Cell, Storage>::Slice& buffers_;
  const typename Workspace<Cell, Storage>::Scratch& scratch_;
  const index entries_;
  const index saved_stride_;
  const Team team_;
  index chunk_end_ = 0, chunk_entry_ = 0;  // of `rebuild`: the step before its chunk, and the next entry
  const T* x_[pass_rows];
  T* y_[pass_rows];
  T* saved_[pass_rows];
  const T* zone_h_[pass_rows];
  const T* zone_c_[pass_rows];
};

// The loops of thread `rank` of plan.threads, over weights that have been packed.
template <class Cell, class Storage>
void loop_forward(const Layer& layer, const Plan& plan, const Workspace<Cell, Storage>& work, int rank) {
  const int team = rank / plan.team, teams = plan.threads / plan.team;
  const Team mine{rank % plan.team, plan.team, plan.teams + team};
  for (int n = team; n < layer.directions * plan.slices; n += teams) {
    const int d = n / plan.slices, slice = n % plan.slices;
    Forward<Cell, Storage> forward(layer, layer.direction[d], plan, work, d, slice, rank, mine);
    for_passes(plan, slice, [&](const Pass& pass) { forward.run(pass); });
  }
}

// What thread `rank` of plan.threads does of a call.
template <class Cell>
void run_forward(const Layer& layer, const Plan& plan, const char* memory, int rank) {
  const auto& work = *reinterpret_cast<const Workspace<Cell>*>(memory);
  const Team everybody{rank, plan.threads, plan.everybody};
  for (int d = 0; d < layer.directions; ++d) Cell::pack(work.sizes, layer.direction[d], work.packed[d], everybody);
  everybody.wait();
  loop_forward(layer, plan, work, rank);
}

}  // namespace recurra::RECURRA_LEVEL
