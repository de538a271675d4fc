// What the machine can do at best, for the benchmark to hold the layers against: multiplying and adding in registers,
// and reading an array again and again. For the instruction set that the including file is compiled for.
#pragma once

#include "vector.hpp"

namespace skimrnn {
namespace {

constexpr int kChains = 12;  // Enough sums to hide the latency of a multiply-add, few enough for 16 registers.

// `rounds` times kChains multiply-adds of a vector; gives back a number that depends on all of them.
inline float multiply_add_rounds(int64_t rounds, float factor) {
  const Vec a = broadcast(factor), b = broadcast(1.0f - factor);
  Vec sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = broadcast(float(i));  // Equal chains would be computed once.
  for (int64_t round = 0; round < rounds; ++round)
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * a + b;
  for (int i = 1; i < kChains; ++i) sums[0] += sums[i];
  return sum(sums[0]);
}

// Sum `count` floats `rounds` times, forwards and backwards in turn: what the last round left in the cache comes first.
inline float read_rounds(const float* from, int64_t count, int64_t rounds) {
  const int64_t blocks = count / (8 * kLanes);
  Vec sums[8] = {};
  for (int64_t round = 0; round < rounds; ++round)
    for (int64_t block = 0; block < blocks; ++block) {
      const float* start = from + (round % 2 ? blocks - 1 - block : block) * 8 * kLanes;
      for (int i = 0; i < 8; ++i) sums[i] += load(start + i * kLanes);
    }
  for (int i = 1; i < 8; ++i) sums[0] += sums[i];
  return sum(sums[0]);
}

inline Peaks make_peaks() { return {kLanes, 2.0 * kChains * kLanes, multiply_add_rounds, read_rounds}; }

}  // namespace
}  // namespace skimrnn
