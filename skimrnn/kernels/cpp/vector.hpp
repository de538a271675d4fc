// One vector of floats, as wide as the instruction set that the including file is compiled for, and functions of it.
// Everything has internal linkage: each instruction set is compiled apart, and the linker must not share code of it.
#pragma once

#include <cstdint>

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
typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(float))));

inline Vec load(const float* from) {
  Vec value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

inline void store(float* to, Vec value) { __builtin_memcpy(to, &value, sizeof value); }

inline Vec broadcast(float value) { return value - Vec{}; }

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

inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp_bounded(at_least(at_most(-x, 87.0f), -87.0f))); }

// Near zero an odd polynomial (Cephes' tanhf), elsewhere 1 - 2 / (exp(2|x|) + 1) with the sign of x.
inline Vec tanh(Vec x) {
  IntVec bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  IntVec sign = bits & INT32_MIN;
  IntVec magnitude_bits = bits & INT32_MAX;
  Vec magnitude;
  __builtin_memcpy(&magnitude, &magnitude_bits, sizeof magnitude);
  Vec far = 1.0f - 2.0f / (exp_bounded(2.0f * at_most(magnitude, 10.0f)) + 1.0f);
  IntVec far_bits;
  __builtin_memcpy(&far_bits, &far, sizeof far_bits);
  far_bits |= sign;
  __builtin_memcpy(&far, &far_bits, sizeof far);
  Vec square = x * x;
  Vec p = -5.70498872745e-3f * square + 2.06390887954e-2f;
  p = p * square - 5.37397155531e-2f;
  p = p * square + 1.33314422036e-1f;
  p = p * square - 3.33332819422e-1f;
  Vec near = p * square * x + x;
  return magnitude < 0.625f ? near : far;
}

}  // namespace
}  // namespace skimrnn
