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

#endif

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

// Asks for memory that will be read, or written, some microseconds from now.
template <class T>
RECURRA_INLINE void prefetch([[maybe_unused]] const T* from, [[maybe_unused]] index count) {
#if !defined(_MSC_VER) || defined(__clang__)
  const char* const bytes = reinterpret_cast<const char*>(from);
  for (index n = 0; n < count * static_cast<index>(sizeof(T)); n += 64) __builtin_prefetch(bytes + n, 0, 2);
#endif
}

template <class T>
RECURRA_INLINE void prefetch_to_write([[maybe_unused]] const T* to, [[maybe_unused]] index count) {
#if !defined(_MSC_VER) || defined(__clang__)
  const char* const bytes = reinterpret_cast<const char*>(to);
  for (index n = 0; n < count * static_cast<index>(sizeof(T)); n += 64) __builtin_prefetch(bytes + n, 1, 2);
#endif
}

RECURRA_INLINE index smaller(index a, index b) { return a < b ? a : b; }
RECURRA_INLINE index larger(index a, index b) { return a < b ? b : a; }
RECURRA_INLINE index round_up(index n, index to) { return (n + to - 1) / to * to; }

}  // namespace recurra::RECURRA_LEVEL
