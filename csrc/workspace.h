// The memory of one call. One object lays it out, before the threads start: first without memory,
// to count, then with it.
#pragma once

#include "sequence.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace recurra::RECURRA_LEVEL {

template <class T>
index bytes(index count) {
  return round_up(count * static_cast<index>(sizeof(T)), 64);
}

// Hands out aligned pieces of the workspace; with a null base it only counts.
struct Arena {
  char* base;
  index used = 0;

  template <class T>
  T* take(index count) {
    T* piece = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += bytes<T>(count);
#if defined(__SANITIZE_ADDRESS__)
    // No access may stray from one piece into the next.
    used += 64;
    if (base) ASAN_POISON_MEMORY_REGION(piece + count, base + used - reinterpret_cast<char*>(piece + count));
#endif
    return piece;
  }
};

// Columns of a weight's gradient, in tiles: rows of the tile are columns of the weight here.
struct Columns {
  index count;
  int tile;
  index tiles;
};

// Tiles of an even number of columns, with few empty ones and few tiles.
inline Columns columns_of(index count) {
  Columns best{count, 2, larger(1, (count + 1) / 2)};
  for (int tile = 4; tile <= accumulators / plain; tile += 2) {
    const index tiles = larger(1, (count + tile - 1) / tile);
    if (tiles * (tile + 1) < best.tiles * (best.tile + 1)) best = {count, tile, tiles};
  }
  return best;
}

inline index packed_columns(index count) {
  const Columns columns = columns_of(count);
  return columns.tiles * columns.tile;
}

// Entries between two flushes. The strip of a flush should fit the first cache; but where the sums
// overflow the second one, to go through them less often is worth more.
template <class Cell>
index entries_of_ring(const Sizes& s) {
  const index sums = Cell::ring_slots * s.padded * (s.input + s.output);
  return sums * static_cast<index>(sizeof(typename Cell::Element)) > index{1} << 21 ? 384 : 128;
}

// Panels of all weights that forward needs.
template <class Cell, class Storage>
Packed<typename Cell::Element, Storage> take_packed(const Sizes& s, Arena& arena) {
  using T = typename Cell::Element;
  const auto take = [&](index panels, index size, index width) {
    Weights<T, Storage> weights;
    weights.panels = arena.take<typename Storage::Element>(panels * size * width);
    weights.overflow = panels * size * width * static_cast<index>(sizeof(typename Storage::Element)) > second_cache;
    if (Storage::has_scale) weights.scale = arena.take<T>(panels * width);
    return weights;
  };
  Packed<T, Storage> packed;
  packed.w = take(s.panels, s.input, s.panel_width);
  packed.u = take(s.panels, s.output, Cell::panel_units * Cell::u_slots.count);
  packed.u_late = take(Cell::late_panels(s), Cell::late_terms(s), Cell::late_width);
  packed.bias = arena.take<T>(s.panels * Cell::bias_stride);
  packed.diagonal = arena.take<T>(Cell::diagonals * s.padded);
  return packed;
}

template <class Cell, class Storage>
void round_packed(const Sizes& s, const Packed<float>& full, const Packed<float, Storage>& to) {
  round_panels(full.w.panels, s.panels, s.input, s.panel_width, to.w);
  round_panels(full.u.panels, s.panels, s.output, Cell::panel_units * Cell::u_slots.count, to.u);
  round_panels(full.u_late.panels, Cell::late_panels(s), Cell::late_terms(s), Cell::late_width, to.u_late);
  for (index n = 0; n < s.panels * Cell::bias_stride; ++n) to.bias[n] = full.bias[n];
  for (index n = 0; n < Cell::diagonals * s.padded; ++n) to.diagonal[n] = full.diagonal[n];
}

// Everything that lives in the workspace, and where; itself at the workspace's beginning.
template <class Cell, class Storage = Full<typename Cell::Element>>
struct Workspace {
  using T = typename Cell::Element;

  struct Slice {
    T *h, *h_next, *h_in, *c, *projected, *hidden_buffer, *late_input, *rebuilt, *rebuilt_y;
    T *d_h, *d_c, *part, *ring, *ring_late, *ring_d_late, *rows_x, *rows_h, *rows_late;
    Sums<T> sums;
  };
  // Private to a thread: pointer tables of the entries of a chunk.
  struct Scratch {
    const T **x, **h, **mask, **chunk_x;
    T** d_x;
    T* strip;
    T* x_parts;
  };

  Sizes sizes;
  Packed<T, Storage> packed[2];
  PackedBack<T> back[2];
  Slice* slices;     // (directions * slices)
  Scratch* scratch;  // (threads)
  T* zeros;
  index entries;     // of a chunk of projected input
  index ring_rows;   // entries of the ring
  index total;

  Workspace(const Layer& layer, const Plan& plan, bool backward, char* work) : sizes(sizes_of<Cell>(layer)) {
    Arena arena{work};
    arena.take<Workspace>(1);
    const Sizes& s = sizes;
    const index rows = widest_pass(layer, plan);
    entries = projected_entries<Cell>(s, rows);
    ring_rows = larger(rows, entries_of_ring<Cell>(s));
    const index late = Cell::late_size(s), d_late = Cell::d_late_size(s);
    for (int d = 0; d < layer.directions; ++d) {
      if (backward) {
        PackedBack<T>& p = back[d];
        p.u_back = arena.take<T>(plain_panels<T>(s.output) * Cell::h_slots.count * s.padded * plain_width<T>);
        if (layer.direction[d].d_x.data)
          p.w_back = arena.take<T>(plain_panels<T>(s.input) * Cell::x_slots.count * s.padded * plain_width<T>);
        p.late_back = arena.take<T>(Cell::late_back_size(s));
        p.diagonal = arena.take<T>(Cell::diagonals * s.padded);
      }
      if (!backward || layer.rebuild) packed[d] = take_packed<Cell, Storage>(s, arena);
    }
    const int count = layer.directions * plan.slices;
    slices = arena.take<Slice>(count);
    scratch = arena.take<Scratch>(plan.threads);
    const index longest = larger(s.state, larger(s.padded, s.carried));
    zeros = arena.take<T>(longest);
    if (work)
      for (index n = 0; n < longest; ++n) zeros[n] = 0;
    for (int n = 0; n < count; ++n) {
      Slice slice{};
      if (backward) {
        const Direction& d = layer.direction[n / plan.slices];
        slice.d_h = arena.take<T>(rows * s.state);
        slice.d_c = arena.take<T>(rows * s.carried);
        slice.part = arena.take<T>(rows * larger(s.state, s.padded));
        slice.ring = arena.take<T>(ring_rows * Cell::ring_slots * s.padded);
        slice.ring_late = arena.take<T>(ring_rows * late);
        slice.ring_d_late = arena.take<T>(ring_rows * d_late);
        slice.rows_x = arena.take<T>(ring_rows * packed_columns(s.input));
        slice.rows_h = arena.take<T>(ring_rows * packed_columns(s.output));
        slice.rows_late = late ? arena.take<T>(ring_rows * packed_columns(Cell::late_columns(s))) : nullptr;
        if (d.d_weight_ih) slice.sums.x = arena.take<T>(s.input * Cell::x_slots.count * s.padded);
        if (d.d_weight_hh) slice.sums.h = arena.take<T>(s.output * Cell::h_slots.count * s.padded);
        if (late && (d.d_weight_hh || d.d_weight_hr)) slice.sums.late = arena.take<T>(Cell::late_sum_size(s));
        slice.sums.bias = arena.take<T>(Cell::ring_slots * s.padded);
        slice.sums.diagonal = arena.take<T>(Cell::diagonals * s.padded);
        if (layer.rebuild) {
          slice.rebuilt = arena.take<T>(rows * step_size<Cell>(layer));
          slice.rebuilt_y = arena.take<T>(rows * s.state);
        }
      }
      if (!backward || layer.rebuild) {
        const bool masked = layer.direction[n / plan.slices].mask.data;
        slice.h = arena.take<T>(rows * s.state);
        slice.h_next = arena.take<T>(rows * s.state);
        slice.h_in = masked ? arena.take<T>(rows * s.state) : nullptr;
        slice.c = Cell::parts ? arena.take<T>(rows * s.carried) : nullptr;
        slice.projected = arena.take<T>(entries * s.projected);
        slice.hidden_buffer = arena.take<T>(rows * Cell::hidden_buffer_size(s));
        slice.late_input = arena.take<T>(rows * Cell::late_input_size(s));
      }
      if (work) slices[n] = slice;
    }
    for (int n = 0; n < plan.threads; ++n) {
      Scratch mine{};
      mine.chunk_x = arena.take<const T*>(entries);
      if (backward) {
        mine.x = arena.take<const T*>(ring_rows);
        mine.h = arena.take<const T*>(ring_rows);
        mine.mask = arena.take<const T*>(ring_rows);
        mine.d_x = arena.take<T*>(ring_rows);
        mine.strip = arena.take<T>(ring_rows * plain_width<T>);
      }
      mine.x_parts = arena.take<T>(8 * lanes<T>);
      if (work) scratch[n] = mine;
    }
    total = arena.used;
  }
};

}  // namespace recurra::RECURRA_LEVEL
