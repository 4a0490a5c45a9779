// sigmoid, tanh, log sigmoid and a capped exponential on vectors. Largest error in float32, against
// float64, over all floats: see tests/kernels/test_activations.py. NaN stays NaN; infinities give the
// limits.
#pragma once

#include "simd.h"

namespace recurra::RECURRA_LEVEL {

// log sigmoid(x), and its slope sigmoid(-x).
template <class T>
struct LogSigmoid {
  Vec<T> value, slope;
};

// The same of one number.
template <class T>
RECURRA_INLINE void log_sigmoid_of(T x, T& value, T& slope) {
  const T u = std::exp(x < 0 ? x : -x);
  value = (x < 0 ? x : T(0)) - std::log1p(u);
  slope = (x < 0 ? 1 : u) / (1 + u);
}

template <class T>
RECURRA_INLINE T exp_capped_of(T x) {
  return std::exp(x > 0 ? T(0) : x);
}

#if defined(RECURRA_LEVEL_SCALAR)

template <class T>
RECURRA_INLINE Vec<T> sigmoid(Vec<T> x) {
  for (int n = 0; n < lanes<T>; ++n) x.lane[n] = T(1) / (T(1) + std::exp(-x.lane[n]));
  return x;
}

template <class T>
RECURRA_INLINE Vec<T> tanh(Vec<T> x) {
  for (int n = 0; n < lanes<T>; ++n) x.lane[n] = std::tanh(x.lane[n]);
  return x;
}

template <class T>
RECURRA_INLINE Vec<T> exp_capped(Vec<T> x) {
  for (int n = 0; n < lanes<T>; ++n) x.lane[n] = exp_capped_of(x.lane[n]);
  return x;
}

template <class T>
RECURRA_INLINE LogSigmoid<T> log_sigmoid(const Vec<T>& x) {
  LogSigmoid<T> result;
  for (int n = 0; n < lanes<T>; ++n) log_sigmoid_of(x.lane[n], result.value.lane[n], result.slope.lane[n]);
  return result;
}

#else

// double is for checks of gradients: exact, not fast.
RECURRA_INLINE Vec<double> sigmoid(Vec<double> x) {
  for (int n = 0; n < lanes<double>; ++n) x[n] = 1.0 / (1.0 + std::exp(-x[n]));
  return x;
}

RECURRA_INLINE Vec<double> tanh(Vec<double> x) {
  for (int n = 0; n < lanes<double>; ++n) x[n] = std::tanh(x[n]);
  return x;
}

// e^min(x, 0)
RECURRA_INLINE Vec<double> exp_capped(Vec<double> x) {
  for (int n = 0; n < lanes<double>; ++n) x[n] = exp_capped_of(x[n]);
  return x;
}

RECURRA_INLINE LogSigmoid<double> log_sigmoid(Vec<double> x) {
  LogSigmoid<double> result;
  for (int n = 0; n < lanes<double>; ++n) {
    double value, slope;
    log_sigmoid_of(x[n], value, slope);
    result.value[n] = value;
    result.slope[n] = slope;
  }
  return result;
}

typedef std::int32_t IntVec __attribute__((vector_size(vector_bytes)));

// NaN passes: both comparisons are false.
RECURRA_INLINE Vec<float> clamp(Vec<float> x, float low, float high) {
  const Vec<float> l = broadcast(low), h = broadcast(high);
  x = x < l ? l : x;
  return x > h ? h : x;
}

// e^x for x in [-87, 87]: x = n ln 2 + r with ln 2 in two parts, and a polynomial in r.
RECURRA_INLINE Vec<float> exp_bounded(Vec<float> x) {
  const float to_integer = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec<float> shifted = fma(x, broadcast(1.44269504088896341F), broadcast(to_integer));
  const Vec<float> n = shifted - to_integer;
  Vec<float> r = fma(n, broadcast(-0.693359375F), x);
  r = fma(n, broadcast(2.12194440e-4F), r);
  Vec<float> p = broadcast(1.0F / 5040);
  p = fma(p, r, broadcast(1.0F / 720));
  p = fma(p, r, broadcast(1.0F / 120));
  p = fma(p, r, broadcast(1.0F / 24));
  p = fma(p, r, broadcast(1.0F / 6));
  p = fma(p, r, broadcast(0.5F));
  p = fma(p, r, broadcast(1.0F));
  p = fma(p, r, broadcast(1.0F));
  // The low bits of `shifted` are n; moved to the exponent they make 2^n. Multiplied, not added to the
  // bits of p, so that every NaN stays one.
  const IntVec power = (reinterpret_cast<IntVec>(shifted) << 23) + 0x3F800000;
  return p * reinterpret_cast<Vec<float>>(power);
}

RECURRA_INLINE Vec<float> sigmoid(Vec<float> x) {
  return 1.0F / (1.0F + exp_bounded(-clamp(x, -87.0F, 87.0F)));
}

RECURRA_INLINE Vec<float> exp_capped(Vec<float> x) { return exp_bounded(clamp(x, -87.0F, 0.0F)); }

// min(x, 0) - log(1 + u) with u = e^-|x|. The logarithm is 2 artanh s with s = u / (2 + u) up to 1/3, a
// polynomial in s² times s: its relative error is small too, for sums over thousands of steps.
RECURRA_INLINE LogSigmoid<float> log_sigmoid(Vec<float> x) {
  const Vec<float> zero{}, one = broadcast(1.0F);
  const Vec<float> u = exp_capped(x < zero ? x : -x), s = u / (2.0F + u), square = s * s;
  Vec<float> p = broadcast(0.2817833423614502F);
  p = fma(p, square, broadcast(0.27960604429244995F));
  p = fma(p, square, broadcast(0.40024909377098083F));
  p = fma(p, square, broadcast(0.6666631698608398F));
  p = fma(p, square, broadcast(2.0F));
  return {fma(-s, p, x < zero ? x : zero), (x < zero ? one : u) / (one + u)};
}

// An odd rational function of degree 13 over 6; beyond the bounds it stays at ±(1 - 2.4e-7).
RECURRA_INLINE Vec<float> tanh(Vec<float> x) {
  x = clamp(x, -7.90531110763549805F, 7.90531110763549805F);
  const Vec<float> s = x * x;
  Vec<float> p = broadcast(-2.76076847742355e-16F);
  p = fma(p, s, broadcast(2.00018790482477e-13F));
  p = fma(p, s, broadcast(-8.60467152213735e-11F));
  p = fma(p, s, broadcast(5.12229709037114e-08F));
  p = fma(p, s, broadcast(1.48572235717979e-05F));
  p = fma(p, s, broadcast(6.37261928875436e-04F));
  p = fma(p, s, broadcast(4.89352455891786e-03F));
  Vec<float> q = broadcast(1.19825839466702e-06F);
  q = fma(q, s, broadcast(1.18534705686654e-04F));
  q = fma(q, s, broadcast(2.26843463243900e-03F));
  q = fma(q, s, broadcast(4.89352518554385e-03F));
  return x * p / q;
}

#endif

}  // namespace recurra::RECURRA_LEVEL
