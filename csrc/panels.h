// Matrix products in panels: the one inner loop of the kernels, and the packing that feeds it.
//
// A panel is what N vectors of accumulators need of a matrix: for each k in ascending order N vectors
// side by side, 64-byte aligned. For gates, vector n is gate n of the same few hidden units
// ("interleaved"), so that a tile ends with all gates of a unit in registers; otherwise the N vectors
// are neighbouring columns ("plain").
//
// Every output is one accumulator that sums k in ascending order. Its bits therefore depend on its
// own row alone: not on how many rows, panels or threads are at work.
#pragma once

#include <cstring>
#include <limits>

#include "simd.h"

namespace recurra::RECURRA_LEVEL {

// A number as a type, to choose a template by a run-time number.
template <int n>
struct Number {
  static constexpr int value = n;
};

// How the numbers of a panel are stored. Whatever that is, they are widened to T before they are
// used, so a panel of fewer bits gives exactly what its rounded weights give in full.
template <class T>
struct Full {
  using Element = T;
  static constexpr bool rounded = false;
  static constexpr bool has_scale = false;
  static constexpr int most_rows = 8;
  static RECURRA_INLINE Vec<T> widen(const T* from) { return load(from); }
};

// The upper half of a float.
struct Bfloat16 {
  using Element = std::uint16_t;
  static constexpr bool rounded = true;
  static constexpr bool has_scale = false;
  static constexpr int most_rows = 2;
  static RECURRA_INLINE Vec<float> widen(const std::uint16_t* from) {
#if defined(RECURRA_LEVEL_SCALAR)
    Vec<float> whole;
    for (int n = 0; n < lanes<float>; ++n) {
      const std::uint32_t bits = static_cast<std::uint32_t>(from[n]) << 16;
      std::memcpy(whole.lane + n, &bits, sizeof bits);
    }
    return whole;
#elif defined(RECURRA_LEVEL_AVX512)
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
#elif defined(RECURRA_LEVEL_AVX2)
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
#else
    typedef std::uint16_t Halves __attribute__((vector_size(vector_bytes / 2), aligned(2), may_alias));
    typedef std::uint32_t Bits __attribute__((vector_size(vector_bytes)));
    const auto halves = *reinterpret_cast<const Halves*>(from);
    return reinterpret_cast<Vec<float>>(__builtin_convertvector(halves, Bits) << 16);
#endif
  }
};

// Whole numbers from -127 to 127, times a scale for each output.
struct Int8 {
  using Element = std::int8_t;
  static constexpr bool rounded = true;
  static constexpr bool has_scale = true;
  static constexpr int most_rows = 2;
  static RECURRA_INLINE Vec<float> widen(const std::int8_t* from) {
#if defined(RECURRA_LEVEL_SCALAR)
    Vec<float> whole;
    for (int n = 0; n < lanes<float>; ++n) whole.lane[n] = static_cast<float>(from[n]);
    return whole;
#elif defined(RECURRA_LEVEL_AVX512)
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(RECURRA_LEVEL_AVX2)
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
    typedef std::int8_t Quarters __attribute__((vector_size(vector_bytes / 4), aligned(1), may_alias));
    typedef std::int32_t Whole __attribute__((vector_size(vector_bytes)));
    const auto quarters = *reinterpret_cast<const Quarters*>(from);
    return __builtin_convertvector(__builtin_convertvector(quarters, Whole), Vec<float>);
#endif
  }
};

// Panels of more bytes than this come from beyond the second cache at every step.
inline constexpr index second_cache = index{1} << 20;

// The panels of one matrix; scale has one number for each output of a panel.
template <class T, class Storage>
struct Weights {
  typename Storage::Element* panels = nullptr;
  T* scale = nullptr;
  bool overflow = false;

  // Calls body(Number<ahead>): 1 where the panels overflow the second cache.
  template <class Body>
  RECURRA_INLINE void with_ahead(const Body& body) const {
    if constexpr (!Storage::rounded && sizeof(T) == sizeof(float)) {
      if (overflow) return body(Number<1>{});
    }
    body(Number<0>{});
  }

  // acc += rows · panel p, whose products have `size` terms. With `ahead` these rows, from `row` on of
  // `count`, ask for their share of the next panel, so that it is there when its turn comes.
  template <bool ahead = false, int R, int N>
  RECURRA_INLINE void multiply(Vec<T> (&acc)[R][N], const T* const (&rows)[R], index p, index size,
                               [[maybe_unused]] index row = 0, [[maybe_unused]] index count = 1) const {
    constexpr index width = N * lanes<T>;
    const typename Storage::Element* panel = panels + p * size * width;
    [[maybe_unused]] const typename Storage::Element* next = panel + size * width + size * width * row / count;
    [[maybe_unused]] const index share = width * R / count;  // of each term
    [[maybe_unused]] Vec<T> scales[N];
    if constexpr (Storage::has_scale)
      for (int n = 0; n < N; ++n) scales[n] = load(scale + p * width + n * lanes<T>);
    for (index k = 0; k < size; ++k, panel += width) {
      if constexpr (ahead) {
        prefetch_line_to_come(next);
        next += share;
      }
      Vec<T> weights[N];
      RECURRA_UNROLL
      for (int n = 0; n < N; ++n) {
        weights[n] = Storage::widen(panel + n * lanes<T>);
        if constexpr (Storage::has_scale) weights[n] = weights[n] * scales[n];
      }
      RECURRA_UNROLL
      for (int r = 0; r < R; ++r) {
        const Vec<T> value = broadcast(rows[r][k]);
        RECURRA_UNROLL
        for (int n = 0; n < N; ++n) acc[r][n] = fma(value, weights[n], acc[r][n]);
      }
    }
  }
};

template <class T>
RECURRA_INLINE Weights<T, Full<T>> plain_weights(const T* panels, index elements) {
  return {const_cast<T*>(panels), nullptr, elements * static_cast<index>(sizeof(T)) > second_cache};
}

template <int R, int N, class T>
RECURRA_INLINE void accumulate(Vec<T> (&acc)[R][N], const T* const (&rows)[R], const T* panel, index size) {
  plain_weights(panel, 0).multiply(acc, rows, 0, size);
}

// The same with the rows packed too: R values side by side for each k.
template <int R, int N, class T>
RECURRA_INLINE void accumulate_packed(Vec<T> (&acc)[R][N], const T* rows, const T* panel, index size) {
  for (index k = 0; k < size; ++k, panel += N * lanes<T>, rows += R) {
    Vec<T> weights[N];
    RECURRA_UNROLL
    for (int n = 0; n < N; ++n) weights[n] = load(panel + n * lanes<T>);
    RECURRA_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vec<T> value = broadcast(rows[r]);
      RECURRA_UNROLL
      for (int n = 0; n < N; ++n) acc[r][n] = fma(value, weights[n], acc[r][n]);
    }
  }
}

// `keep_first` for a tile whose vectors all hold the same units, of which `count` exist.
template <int R, int N, class V>
RECURRA_INLINE void clear_missing(V (&acc)[R][N], index count) {
  if (count >= static_cast<index>(sizeof(V) / sizeof(lane_of(acc[0][0], 0)))) return;
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) acc[r][n] = keep_first(acc[r][n], count);
}

// Calls body(Number<R>, first row) for groups of at most `most` rows, of sizes that differ by one at
// most: 16 rows in groups of up to 6 are 6 + 5 + 5, never 6 + 6 + 4.
template <int most, class Body>
RECURRA_INLINE void for_row_groups(index rows, const Body& body) {
  if (rows <= 0) return;
  const index groups = (rows + most - 1) / most;
  const index base = rows / groups, longer = rows % groups;
  index first = 0;
  for (index group = 0; group < groups; ++group) {
    const index size = base + (group < longer);
    if (size == 1) body(Number<1>{}, first);
    if constexpr (most >= 2) if (size == 2) body(Number<2>{}, first);
    if constexpr (most >= 3) if (size == 3) body(Number<3>{}, first);
    if constexpr (most >= 4) if (size == 4) body(Number<4>{}, first);
    if constexpr (most >= 5) if (size == 5) body(Number<5>{}, first);
    if constexpr (most >= 6) if (size == 6) body(Number<6>{}, first);
    if constexpr (most >= 7) if (size == 7) body(Number<7>{}, first);
    if constexpr (most >= 8) if (size == 8) body(Number<8>{}, first);
    first += size;
  }
}

// Rows of a tile of N vectors: as many as the registers hold. double is for checks of gradients, and
// small tiles keep the build short.
template <class T, int N>
inline constexpr int tile_rows = sizeof(T) > sizeof(float) ? 2 : accumulators / N > 8 ? 8 : accumulators / N;

// Vectors in a plain panel.
inline constexpr int plain = 2;

template <class T>
inline constexpr int plain_width = plain * lanes<T>;

// The start of R rows that lie `stride` apart.
template <int R, class T>
struct RowBlock {
  const T* row[R];
  RECURRA_INLINE RowBlock(const T* first, index stride) {
    for (int r = 0; r < R; ++r) row[r] = first + r * stride;
  }
};

// Which block of the stacked weights goes to each slot of a panel.
struct Slots {
  int count;
  int gate[4];
};

// The transpose of `units` rows of `size` numbers: `size` vectors, `to_stride` apart, with 0 for missing
// units.
template <class T>
void pack_columns(const T* rows, index units, index size, T* to, index to_stride) {
  constexpr int w = lanes<T>;
  index k = 0;
  if (units >= w)
    for (; k + w <= size; k += w) transpose(rows + k, size, to + k * to_stride, to_stride);
  for (; k < size; ++k)
    for (index u = 0; u < w; ++u) to[k * to_stride + u] = u < units ? rows[u * size + k] : T(0);
}

// Interleaved panels [first, last) of weight (gates * hidden, size): panel p holds the units
// [p * lanes, ...) of every slot; missing units are 0.
template <class T>
void pack_interleaved(const T* weight, index hidden, index size, Slots slots, index first, index last, T* panels) {
  constexpr int w = lanes<T>;
  for (index p = first; p < last; ++p) {
    T* panel = panels + p * size * slots.count * w;
    const index units = smaller(w, hidden - p * w);
    for (int slot = 0; slot < slots.count; ++slot)
      pack_columns(weight + (slots.gate[slot] * hidden + p * w) * size, units, size, panel + slot * w, slots.count * w);
  }
}

template <class T>
void pack_transposed_panel(const T* weight, index columns, index size, index p, T* to) {
  for (int n = 0; n < plain; ++n) {
    const index unit = p * plain_width<T> + n * lanes<T>;
    pack_columns(weight + smaller(unit, columns) * size, columns - unit, size, to + n * lanes<T>, plain_width<T>);
  }
}

// Plain panels [first, last) of the transpose of weight (columns, size): y = weight · x.
template <class T>
void pack_transposed(const T* weight, index columns, index size, index first, index last, T* panels) {
  for (index p = first; p < last; ++p)
    pack_transposed_panel(weight, columns, size, p, panels + p * size * plain_width<T>);
}

// Plain panels [first, last) of weight (gates * hidden, columns) itself: d_x = d_gates · weight. The
// rows of each slot are followed by zeros up to `padded`, as the gradients of gates are stored. Weights
// are read in the order in which they lie, whatever panels they go to.
template <class T>
void pack_rows(const T* weight, index hidden, index padded, index columns, Slots slots, index first, index last, T* panels) {
  constexpr int w = plain_width<T>;
  const index panel_size = slots.count * padded * w;
  for (int slot = 0; slot < slots.count; ++slot)
    for (index k = 0; k < padded; ++k) {
      const T* const row = weight + (slots.gate[slot] * hidden + k) * columns;
      T* to = panels + first * panel_size + (slot * padded + k) * w;
      for (index p = first; p < last; ++p, to += panel_size) {
        const index units = k < hidden ? smaller(w, columns - p * w) : 0;
        if (units == w) {
          for (int n = 0; n < plain; ++n) store(to + n * lanes<T>, load(row + p * w + n * lanes<T>));
          continue;
        }
        for (index u = 0; u < w; ++u) to[u] = u < units ? row[p * w + u] : T(0);
      }
    }
}

// Units [first, last) of `count` vectors (count, hidden), with zeros up to `padded`; null: none.
template <class T>
void pack_diagonal(const T* from, int count, index hidden, index padded, index first, index last, T* to) {
  if (!from) return;
  for (int slot = 0; slot < count; ++slot)
    for (index u = first; u < last; ++u) to[slot * padded + u] = u < hidden ? from[slot * hidden + u] : T(0);
}

// One vector of a panel's bias: units [unit, ...) of slot `gate`, the sum of both where they exist.
template <class T>
void pack_bias(const void* first, const void* second, int gate, index hidden, index unit, T* to) {
  for (index u = unit; u < unit + lanes<T>; ++u, ++to) {
    *to = 0;
    if (u >= hidden) continue;
    if (first) *to += static_cast<const T*>(first)[gate * hidden + u];
    if (second) *to += static_cast<const T*>(second)[gate * hidden + u];
  }
}

// The nearest bfloat16, ties to even; NaN stays NaN.
inline std::uint16_t to_bfloat16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// Panels of full numbers, `width` outputs wide, rounded to the storage of `to`.
inline void round_panels(const float* full, index panels, index size, index width, Weights<float, Full<float>> to) {
  for (index n = 0; n < panels * size * width; ++n) to.panels[n] = full[n];
}

inline void round_panels(const float* full, index panels, index size, index width, Weights<float, Bfloat16> to) {
  for (index n = 0; n < panels * size * width; ++n) to.panels[n] = to_bfloat16(full[n]);
}

inline void round_panels(const float* full, index panels, index size, index width, Weights<float, Int8> to) {
  for (index p = 0; p < panels; ++p)
    for (index column = 0; column < width; ++column) {
      const float* const from = full + p * size * width + column;
      float largest = 0;
      bool finite = true;
      for (index k = 0; k < size; ++k) {
        const float magnitude = std::fabs(from[k * width]);
        finite = finite && magnitude <= std::numeric_limits<float>::max();
        largest = magnitude > largest ? magnitude : largest;
      }
      // A weight that is no number makes its outputs no numbers, as it does in full.
      const float scale = finite ? largest / 127 : 0;
      to.scale[p * width + column] = finite ? scale : std::numeric_limits<float>::quiet_NaN();
      for (index k = 0; k < size; ++k)
        to.panels[(p * size + k) * width + column] =
            static_cast<std::int8_t>(scale > 0 ? std::lrintf(from[k * width] / scale) : 0);
    }
}

}  // namespace recurra::RECURRA_LEVEL
