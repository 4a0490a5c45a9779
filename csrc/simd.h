// Vectors of T as wide as this level allows: `Vec<T>` with W lanes, and the few operations that the
// kernels need. Every level is compiled from the same sources into its own namespace, so that one
// build holds several and the widest that the machine can run is chosen at run time.
//
// Nothing here or in a header of the kernels may instantiate a template of the standard library: the
// linker would keep one copy of it for the whole program, perhaps one with instructions that this
// machine lacks.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#if defined(RECURRA_LEVEL_AVX2) || defined(RECURRA_LEVEL_AVX512)
#include <immintrin.h>
#elif defined(RECURRA_LEVEL_NEON)
#include <arm_neon.h>
#endif

#include "calls.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define RECURRA_INLINE __forceinline
#define RECURRA_UNROLL
#else
#define RECURRA_INLINE inline __attribute__((always_inline))
#define RECURRA_UNROLL _Pragma("GCC unroll 16")
#endif

namespace recurra::RECURRA_LEVEL {

#if defined(RECURRA_LEVEL_AVX512)
inline constexpr int vector_bytes = 64;
inline constexpr int accumulators = 24;  // of 32 registers; the rest hold weights and broadcasts
#elif defined(RECURRA_LEVEL_AVX2)
inline constexpr int vector_bytes = 32;
inline constexpr int accumulators = 12;  // of 16 registers
#elif defined(RECURRA_LEVEL_NEON)
inline constexpr int vector_bytes = 16;
inline constexpr int accumulators = 24;  // of 32 registers
#else
inline constexpr int vector_bytes = 16;
inline constexpr int accumulators = 8;
#endif

template <class T>
inline constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

#if defined(RECURRA_LEVEL_SCALAR)

// Plain C++ that every compiler takes.
template <class T>
struct Vec {
  T lane[lanes<T>];

#define RECURRA_OPERATOR(op)                                                \
  friend RECURRA_INLINE Vec operator op(const Vec& a, const Vec& b) {       \
    Vec result;                                                             \
    for (int n = 0; n < lanes<T>; ++n) result.lane[n] = a.lane[n] op b.lane[n]; \
    return result;                                                          \
  }
  RECURRA_OPERATOR(+)
  RECURRA_OPERATOR(-)
  RECURRA_OPERATOR(*)
  RECURRA_OPERATOR(/)
#undef RECURRA_OPERATOR
};

template <class T>
RECURRA_INLINE Vec<T> broadcast(T value) {
  Vec<T> result;
  for (int n = 0; n < lanes<T>; ++n) result.lane[n] = value;
  return result;
}

template <class T>
RECURRA_INLINE Vec<T> load(const T* from) {
  Vec<T> result;
  for (int n = 0; n < lanes<T>; ++n) result.lane[n] = from[n];
  return result;
}

template <class T>
RECURRA_INLINE void store(T* to, const Vec<T>& value) {
  for (int n = 0; n < lanes<T>; ++n) to[n] = value.lane[n];
}

template <class T>
RECURRA_INLINE Vec<T> fma(const Vec<T>& a, const Vec<T>& b, const Vec<T>& c) {
  return a * b + c;
}

template <class T>
RECURRA_INLINE T lane_of(const Vec<T>& value, int n) {
  return value.lane[n];
}

template <class T>
RECURRA_INLINE void set_lane(Vec<T>& value, int n, T number) {
  value.lane[n] = number;
}

template <class T>
RECURRA_INLINE Vec<T> positive_part(const Vec<T>& value) {  // NaN stays NaN
  Vec<T> result;
  for (int n = 0; n < lanes<T>; ++n) result.lane[n] = value.lane[n] < 0 ? T(0) : value.lane[n];
  return result;
}

template <class T>
RECURRA_INLINE Vec<T> where_positive(const Vec<T>& test, const Vec<T>& value) {  // else 0
  Vec<T> result;
  for (int n = 0; n < lanes<T>; ++n) result.lane[n] = test.lane[n] > 0 ? value.lane[n] : T(0);
  return result;
}

template <class T>
RECURRA_INLINE Vec<T> maximum(const Vec<T>& a, const Vec<T>& b) {  // NaN where either is
  Vec<T> result;
  for (int n = 0; n < lanes<T>; ++n)
    result.lane[n] = a.lane[n] > b.lane[n] || a.lane[n] != a.lane[n] ? a.lane[n] : b.lane[n];
  return result;
}

template <class T>
RECURRA_INLINE Vec<T> where_equal(const Vec<T>& a, const Vec<T>& b, const Vec<T>& yes, const Vec<T>& no) {
  Vec<T> result;
  for (int n = 0; n < lanes<T>; ++n) result.lane[n] = a.lane[n] == b.lane[n] ? yes.lane[n] : no.lane[n];
  return result;
}

#else

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(vector_bytes)));
  typedef T loose __attribute__((vector_size(vector_bytes), aligned(sizeof(T)), may_alias));
};

template <class T>
using Vec = typename VecOf<T>::type;

// The vector of T for a T that cannot be deduced from a Vec.
RECURRA_INLINE Vec<float> broadcast(float value) { return value - Vec<float>{}; }
RECURRA_INLINE Vec<double> broadcast(double value) { return value - Vec<double>{}; }

RECURRA_INLINE Vec<float> load(const float* from) {
  return *reinterpret_cast<const VecOf<float>::loose*>(from);
}
RECURRA_INLINE Vec<double> load(const double* from) {
  return *reinterpret_cast<const VecOf<double>::loose*>(from);
}
RECURRA_INLINE void store(float* to, Vec<float> value) {
  *reinterpret_cast<VecOf<float>::loose*>(to) = value;
}
RECURRA_INLINE void store(double* to, Vec<double> value) {
  *reinterpret_cast<VecOf<double>::loose*>(to) = value;
}

// Written out, because the compiler's own fusing may differ from one loop to the next, and then the
// bits of a row would depend on how many rows are computed with it.
#if defined(RECURRA_LEVEL_AVX512)
RECURRA_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
RECURRA_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm512_fmadd_pd(a, b, c); }
#elif defined(RECURRA_LEVEL_AVX2)
RECURRA_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
RECURRA_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm256_fmadd_pd(a, b, c); }
#elif defined(RECURRA_LEVEL_NEON)
RECURRA_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return vfmaq_f32(c, a, b); }
RECURRA_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return vfmaq_f64(c, a, b); }
#endif

template <class V>
RECURRA_INLINE auto lane_of(const V& value, int n) {
  return value[n];
}

template <class V, class T>
RECURRA_INLINE void set_lane(V& value, int n, T number) {
  value[n] = number;
}

template <class V>
RECURRA_INLINE V positive_part(V value) {  // NaN stays NaN
  return value < V{} ? V{} : value;
}

template <class V>
RECURRA_INLINE V where_positive(V test, V value) {  // else 0
  return test > V{} ? value : V{};
}

template <class V>
RECURRA_INLINE V maximum(V a, V b) {  // NaN where either is
  return (a > b) | (a != a) ? a : b;
}

template <class V>
RECURRA_INLINE V where_equal(V a, V b, V yes, V no) {
  return a == b ? yes : no;
}

#endif

// Lanes of a and b in turn: those of their lower halves in `low`, of their upper halves in `high`.
#if defined(RECURRA_LEVEL_SCALAR)
template <class T>
RECURRA_INLINE void interleave(const Vec<T>& a, const Vec<T>& b, Vec<T>& low, Vec<T>& high) {
  constexpr int half = lanes<T> / 2;
  for (int n = 0; n < half; ++n) {
    low.lane[2 * n] = a.lane[n];
    low.lane[2 * n + 1] = b.lane[n];
    high.lane[2 * n] = a.lane[half + n];
    high.lane[2 * n + 1] = b.lane[half + n];
  }
}
#else
#if defined(__clang__)
#define RECURRA_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define RECURRA_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype(a < b){__VA_ARGS__})
#endif
template <class V>
RECURRA_INLINE void interleave(V a, V b, V& low, V& high) {
  constexpr int w = static_cast<int>(sizeof(V) / sizeof(a[0]));
  if constexpr (w == 2) {
    low = RECURRA_SHUFFLE(a, b, 0, 2);
    high = RECURRA_SHUFFLE(a, b, 1, 3);
  } else if constexpr (w == 4) {
    low = RECURRA_SHUFFLE(a, b, 0, 4, 1, 5);
    high = RECURRA_SHUFFLE(a, b, 2, 6, 3, 7);
  } else if constexpr (w == 8) {
    low = RECURRA_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    high = RECURRA_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  } else {
    low = RECURRA_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    high = RECURRA_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }
}
#undef RECURRA_SHUFFLE
#endif

// to[n][m] = from[m][n] for a square of numbers, as wide as a vector: log2(width) perfect shuffles.
template <class T>
RECURRA_INLINE void transpose(const T* from, index from_stride, T* to, index to_stride) {
  constexpr int w = lanes<T>;
  Vec<T> rows[w], shuffled[w];
  RECURRA_UNROLL
  for (int n = 0; n < w; ++n) rows[n] = load(from + n * from_stride);
  RECURRA_UNROLL
  for (int stage = 1; stage < w; stage *= 2) {
    RECURRA_UNROLL
    for (int n = 0; n < w / 2; ++n) interleave(rows[n], rows[n + w / 2], shuffled[2 * n], shuffled[2 * n + 1]);
    RECURRA_UNROLL
    for (int n = 0; n < w; ++n) rows[n] = shuffled[n];
  }
  RECURRA_UNROLL
  for (int n = 0; n < w; ++n) store(to + n * to_stride, rows[n]);
}

// The first `count` lanes; the others are 0.
template <class T>
RECURRA_INLINE Vec<T> load_first(const T* from, index count) {
  if (count >= lanes<T>) return load(from);
  alignas(vector_bytes) T whole[lanes<T>] = {};
  for (index n = 0; n < count; ++n) whole[n] = from[n];
  return load(whole);
}

template <class T>
RECURRA_INLINE void store_first(T* to, Vec<T> value, index count) {
  if (count >= lanes<T>) return store(to, value);
  alignas(vector_bytes) T whole[lanes<T>];
  store(whole, value);
  for (index n = 0; n < count; ++n) to[n] = whole[n];
}

// The first `count` lanes of a value, 0 in the others: those have zero weights, but zero times an
// infinite input is no number, and must not come back as a gradient.
template <class V>
RECURRA_INLINE V keep_first(V value, index count) {
  constexpr int w = static_cast<int>(sizeof(V) / sizeof(lane_of(value, 0)));
  V kept{};
  for (int n = 0; n < w; ++n)
    if (n < count) set_lane(kept, n, lane_of(value, n));
  return kept;
}

#if defined(RECURRA_LEVEL_AVX512)
RECURRA_INLINE Vec<float> load_first(const float* from, index count) {
  if (count >= 16) return load(from);
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << count) - 1), from);
}
RECURRA_INLINE void store_first(float* to, Vec<float> value, index count) {
  if (count >= 16) return store(to, value);
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1U << count) - 1), value);
}
#endif

// The cache line of one address, to be read soon or to be written soon.
template <class T>
RECURRA_INLINE void prefetch_line([[maybe_unused]] const T* from) {
#if !defined(_MSC_VER) || defined(__clang__)
  __builtin_prefetch(from, 0, 3);
#endif
}

template <class T>
RECURRA_INLINE void prefetch_line_to_come([[maybe_unused]] const T* from) {  // later: to the second cache
#if !defined(_MSC_VER) || defined(__clang__)
  __builtin_prefetch(from, 0, 2);
#endif
}

template <class T>
RECURRA_INLINE void prefetch_line_to_write([[maybe_unused]] const T* to) {
#if !defined(_MSC_VER) || defined(__clang__)
  __builtin_prefetch(to, 1, 2);
#endif
}

// Whether vector n of those that lie side by side is the first one in its cache line.
RECURRA_INLINE bool begins_line(index n) {
  constexpr index vectors_of_a_line = vector_bytes < 64 ? 64 / vector_bytes : 1;
  return n % vectors_of_a_line == 0;
}

RECURRA_INLINE index smaller(index a, index b) { return a < b ? a : b; }
RECURRA_INLINE index larger(index a, index b) { return a < b ? b : a; }
RECURRA_INLINE index round_up(index n, index to) { return (n + to - 1) / to * to; }

}  // namespace recurra::RECURRA_LEVEL
