// What all matrix products here are made of, and memory for them.
#pragma once

#include <string.h>

#include "layer.hpp"
#include "vector.hpp"

namespace skimrnn {
namespace {

constexpr int kRows = 128;  // Rows of weights, or of inputs, that a pass keeps in the first-level cache.

// Have floats on their way into the cache of a level while something else is computed.
template <int Level>
inline void ask_for(const float* from, int count) {
  for (int line = 0; line < count; line += 16) __builtin_prefetch(from + line, 0, 4 - Level);
}

template <int N>
struct Count {
  static constexpr int value = N;
};

// Call `f(Count<N>, offset)` over runs of N = `Most` of `total` items, and for the rest.
template <int Most, class F>
inline void call_rest(int rest, int offset, const F& f) {
  if constexpr (Most > 0) {
    if (rest == Most) return f(Count<Most>{}, offset);
    call_rest<Most - 1>(rest, offset, f);
  }
}

template <int Most, class F>
inline void in_runs(int total, const F& f) {
  int offset = 0;
  for (; total - offset >= 2 * Most; offset += Most) f(Count<Most>{}, offset);
  // What is left in two even parts: one item alone would take as long as several.
  const int rest = total - offset, part = rest > Most ? (rest + 1) / 2 : rest;
  call_rest<Most>(part, offset, f);
  call_rest<Most>(rest - part, offset + part, f);
}

// sums[n][v] += weights[k][v] * values[n][k] over `count` values of k, for V vectors and N rows: the one shape of all
// matrix products of training. The sums are copied to locals that no pointer can reach, so that they stay in registers.
// Never inlined: the loop needs every register, and what the caller keeps in some would push a sum out to memory.
template <int V, int N>
[[gnu::noinline]] void accumulate(const float* weights, int64_t weight_stride, int64_t count,
                                  const float* const (&values)[N], int64_t value_stride, float* const (&sums)[N]) {
  Vec local[N][V];
  for (int n = 0; n < N; ++n)
    for (int v = 0; v < V; ++v) local[n][v] = load(sums[n] + v * kLanes);
  const float* from[N];
  for (int n = 0; n < N; ++n) from[n] = values[n];
  for (int64_t k = 0; k < count; ++k, weights += weight_stride) {
    Vec value[N];
    for (int n = 0; n < N; ++n) value[n] = broadcast(from[n][k * value_stride]);
    for (int v = 0; v < V; ++v) {
      const Vec weight = load(weights + v * kLanes);
      for (int n = 0; n < N; ++n) local[n][v] += weight * value[n];
    }
  }
  for (int n = 0; n < N; ++n)
    for (int v = 0; v < V; ++v) store(sums[n] + v * kLanes, local[n][v]);
}

class Buffer {
 public:
  explicit Buffer(int64_t floats) : data_(static_cast<float*>(allocate(floats * int64_t(sizeof(float))))) {}
  Buffer(const Buffer&) = delete;
  ~Buffer() { release(data_); }
  float* at(int64_t offset) const { return data_ + offset; }
  // The next `floats` floats that nobody has taken.
  float* take(int64_t floats) {
    taken_ += floats;
    return data_ + taken_ - floats;
  }

 private:
  float* data_;
  int64_t taken_ = 0;
};

}  // namespace
}  // namespace skimrnn
