// One vector of floats, as wide as the instruction set that the including file is compiled for, and functions of it.
// Everything has internal linkage: each instruction set is compiled apart, and the linker must not share code of it.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace skimrnn {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kRegisters = 16;
#else
constexpr int kLanes = 4;
constexpr int kRegisters = 16;
#endif

// Rows whose sums, of `vectors` each, fit the registers beside a value of each row and a weight.
constexpr int rows_in_registers(int vectors) { return (kRegisters - 1) / (vectors + 1); }
constexpr int kGroup = rows_in_registers(4);

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));
typedef float HalfVec __attribute__((vector_size(kLanes / 2 * sizeof(float))));
typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(float))));

template <class V = Vec>
inline V load(const float* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <class V>
inline void store(float* to, V value) { __builtin_memcpy(to, &value, sizeof value); }

template <class V = Vec>
inline V broadcast(float value) { return value - V{}; }

// The first `count` floats, zeros behind them.
inline Vec load_some(const float* from, int count) {
  if (count >= kLanes) return load(from);
  Vec value = {};
  for (int lane = 0; lane < count; ++lane) value[lane] = from[lane];
  return value;
}

// `yes` in the first `count` lanes, `no` in the others.
inline Vec select_first(int count, Vec yes, Vec no) {
  IntVec lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane < count ? yes : no;
}

inline float sum(Vec value) {
  float lanes[kLanes];
  store(lanes, value);
  for (int half = kLanes / 2; half; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

// Limits that let NaN through, as std::min and std::max written this way round do.
inline Vec at_most(Vec value, float limit) { return value > limit ? broadcast(limit) : value; }
inline Vec at_least(Vec value, float limit) { return value < limit ? broadcast(limit) : value; }

// exp(x) for |x| <= 87, to 1.5 ulp: 2^n times a polynomial on the rest (the coefficients are those of Cephes' expf).
inline Vec exp_bounded(Vec x) {
  const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number, which the low bits then hold.
  Vec shifted = x * 1.44269504088896341f + shift;
  Vec n = shifted - shift;
  Vec rest = x - n * 0.693359375f;
  rest = rest + n * 2.12194440e-4f;
  Vec p = 1.9875691500e-4f * rest + 1.3981999507e-3f;
  p = p * rest + 8.3334519073e-3f;
  p = p * rest + 4.1665795894e-2f;
  p = p * rest + 1.6666665459e-1f;
  p = p * rest + 5.0000001201e-1f;
  p = p * (rest * rest) + rest + 1.0f;
  IntVec bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + (127 << 23);  // What lies above the low bits of n is shifted out.
  Vec power;
  __builtin_memcpy(&power, &bits, sizeof power);
  return p * power;
}

// log(1 + x) for 0 <= x <= 1: the coefficients are those of Cephes' logf. Above the square root of 2, 1 + x is halved.
inline Vec log_one_plus(Vec x) {
  const IntVec halved = x > 0.41421356f;
  const Vec z = halved ? 0.5f * x - 0.5f : x;
  Vec p = 7.0376836292e-2f * z - 1.1514610310e-1f;
  p = p * z + 1.1676998740e-1f;
  p = p * z - 1.2420140846e-1f;
  p = p * z + 1.4249322787e-1f;
  p = p * z - 1.6668057665e-1f;
  p = p * z + 2.0000714765e-1f;
  p = p * z - 2.4999993993e-1f;
  p = p * z + 3.3333331174e-1f;
  const Vec square = z * z;
  const Vec rest = p * z * square - 0.5f * square;
  return z + rest + (halved ? broadcast(0.693147180559945309f) : Vec{});
}

// tanh of N vectors side by side, so that each coefficient is fetched once: x P(x^2) / Q(x^2) for |x| <= 8, where it is
// as good as 1, to 6 ulp and never beyond 1. The coefficients are those of the smallest largest relative error.
template <int N>
inline void tanh(Vec (&x)[N]) {
  Vec square[N], p[N], q[N];
  for (int n = 0; n < N; ++n) {
    x[n] = at_least(at_most(x[n], 8.0f), -8.0f);
    square[n] = x[n] * x[n];
  }
  for (int n = 0; n < N; ++n) p[n] = square[n] * 1.52303833e-8f + 2.18946374e-5f;
  for (float coefficient : {3.57159654e-3f, 1.34444967e-1f, 1.0f})
    for (int n = 0; n < N; ++n) p[n] = p[n] * square[n] + coefficient;
  for (int n = 0; n < N; ++n) q[n] = square[n] * 8.52243263e-7f + 3.41128959e-4f;
  for (float coefficient : {2.61644373e-2f, 4.67778241e-1f, 1.0f})
    for (int n = 0; n < N; ++n) q[n] = q[n] * square[n] + coefficient;
  for (int n = 0; n < N; ++n) x[n] = x[n] * p[n] / q[n];
}

inline Vec tanh(Vec x) {
  Vec one[1] = {x};
  tanh(one);
  return one[0];
}

// A sigmoid from the tanh of half its argument.
inline Vec sigmoid_from(Vec tanh_of_half) { return 0.5f * tanh_of_half + 0.5f; }

inline Vec sigmoid(Vec x) { return sigmoid_from(tanh(0.5f * x)); }

}  // namespace
}  // namespace skimrnn
