// Weights in the order in which they are read.
//
// Those of a cell are packed into panels of one vector of units with all their gates side by side: (panels, K, gates,
// lanes). A step walks the panels; within one, the sums of all gates stay in registers from the bias to the new state,
// so each weight is read once and nothing is stored in between. A sum always runs in the same order (bias, inputs,
// hidden units), however many sequences share a pass: batch size, threads and blocks ahead do not change a single bit.
#pragma once

#include <math.h>
#include <string.h>

#include "cells.hpp"
#include "products.hpp"

namespace skimrnn {
namespace {

constexpr int kPanel = 4 * kLanes;  // Floats of one panel's slots.
constexpr int kFloatsAhead = 256;   // Floats of a panel that are asked for ahead.
constexpr bool kHalves = kLanes >= 8;

// One cell's weights in panels, and the sums over them. Where half a vector holds the units that are left for the last
// panel, its weights lie in half vectors: they are bound by fetching them.
template <class Cell>
struct PackedCell {
  PackedCell(const CellWeights& from, int units, int inputs, int hiddens)
      : units(units),
        panels((units + kLanes - 1) / kLanes),
        whole_panels(kHalves && 2 * (panels * kLanes - units) >= kLanes ? panels - 1 : panels),
        inputs(inputs),
        hiddens(hiddens),
        input(size(inputs)),
        hidden(size(hiddens)),
        bias(int64_t(panels) * kPanel) {
    pack(from.input, inputs, input);
    pack(from.hidden, hiddens, hidden);
    for (int unit = 0; unit < units; ++unit)
      for (int gate = 0; gate < Cell::gates; ++gate) {
        float* slots = bias.at(unit / kLanes * kPanel + unit % kLanes);
        slots[Cell::input_slot(gate) * kLanes] += from.input_bias[gate * units + unit];
        slots[Cell::hidden_slot(gate) * kLanes] += from.hidden_bias[gate * units + unit];
      }
  }

  const int units, panels, whole_panels, inputs, hiddens;
  Buffer input, hidden, bias;

  int row_size() const { return panels * kPanel; }

  // Where `packed` has a weight of its column `k` of so many.
  float* weight(const Buffer& packed, int columns, int unit, int gate, int k) const {
    const int panel = unit / kLanes, lanes = panel < whole_panels ? kLanes : kLanes / 2;
    return packed.at(panel * stride(columns) + (int64_t(k) * Cell::gates + gate) * lanes + unit % kLanes);
  }

  template <int P, int N>
  void start_from_bias(int panel, Vec (&sums)[P][N][4]) const {
    for (int p = 0; p < P; ++p)
      for (int n = 0; n < N; ++n)
        for (int slot = 0; slot < 4; ++slot) sums[p][n][slot] = load(bias.at((panel + p) * kPanel + slot * kLanes));
  }

  template <int P, int N>
  void add_inputs(int panel, const float* const (&rows)[N], Vec (&sums)[P][N][4]) const {
    add_columns(input, inputs, 0, inputs, panel, rows, sums, input_slot);
  }

  template <int P, int N>
  void add_hiddens(int panel, const float* const (&rows)[N], Vec (&sums)[P][N][4]) const {
    add_columns(hidden, hiddens, 0, hiddens, panel, rows, sums, hidden_slot);
  }

  // Ask for the first hidden weights of panels.
  void ask_for_hiddens(int panel, int end) const {
    for (; panel < end; ++panel) ask_for<1>(hidden.at(panel * stride(hiddens)), kFloatsAhead);
  }

  // Bias and input projection of `count` inputs, values(n), into rows(n).
  template <class Values, class Rows>
  void project(int count, const Values& values, const Rows& rows) const {
    for (int panel = 0; panel < panels; ++panel)
      for (int k = 0; k == 0 || k < inputs; k += kRows)
        in_runs<kGroup>(count, [&](auto n_tokens, int first) {
          constexpr int N = decltype(n_tokens)::value;
          const float* tokens[N];
          float* to[N];
          for (int n = 0; n < N; ++n) {
            tokens[n] = values(first + n);
            to[n] = rows(first + n) + panel * kPanel;
          }
          Vec sums[1][N][4];
          if (k == 0) start_from_bias(panel, sums);
          for (int n = 0; k > 0 && n < N; ++n)
            for (int slot = 0; slot < 4; ++slot) sums[0][n][slot] = load(to[n] + slot * kLanes);
          add_columns(input, inputs, k, inputs - k < kRows ? inputs : k + kRows, panel, tokens, sums, input_slot);
          for (int n = 0; n < N; ++n)
            for (int slot = 0; slot < 4; ++slot) store(to[n] + slot * kLanes, sums[0][n][slot]);
        });
  }

 private:
  static constexpr auto input_slot = [](int gate) { return Cell::input_slot(gate); };
  static constexpr auto hidden_slot = [](int gate) { return Cell::hidden_slot(gate); };

  static int64_t stride(int columns) { return int64_t(columns) * Cell::gates * kLanes; }
  int64_t size(int columns) const { return (panels + whole_panels) * stride(columns) / 2; }

  // Sums of P panels += their weights, from column `first` to `end` of so many, times rows.
  template <int P, int N, class Slot>
  void add_columns(const Buffer& packed, int columns, int first, int end, int panel, const float* const (&rows)[N],
                   Vec (&sums)[P][N][4], const Slot& slot) const {
    const float* weights = packed.at(panel * stride(columns));
    if constexpr (kHalves)
      if (panel + P > whole_panels) return add<P - 1, 1>(weights, stride(columns), first, end, rows, sums, slot);
    add<P, 0>(weights, stride(columns), first, end, rows, sums, slot);
  }

  // The same for P panels and H (0 or 1) in half vectors. The sums are copied to locals that no pointer can reach, so
  // that they stay in registers. Never inlined: the loop needs every register, and what the caller keeps in some would
  // push a sum out to memory.
  template <int P, int H, int N, class Slot>
  [[gnu::noinline]] static void add(const float* weights, int64_t stride, int first, int end,
                                    const float* const (&rows)[N], Vec (&sums)[P + H][N][4], const Slot& slot) {
    constexpr int64_t kWidth = Cell::gates * kLanes;
    const float* half_weights = weights + P * stride + first * kWidth / 2;
    weights += first * kWidth;
    Vec local[P + H][N][Cell::gates];
    HalfVec half[N][Cell::gates];
    const float* values[N];
    for (int n = 0; n < N; ++n) {
      values[n] = rows[n];
      for (int gate = 0; gate < Cell::gates; ++gate) {
        for (int p = 0; p < P; ++p) local[p][n][gate] = sums[p][n][slot(gate)];
        if (H) half[n][gate] = load<HalfVec>(reinterpret_cast<const float*>(&sums[P][n][slot(gate)]));
      }
    }
    for (int k = first; k < end; ++k, weights += kWidth, half_weights += kWidth / 2) {
      float value[N];
      for (int n = 0; n < N; ++n) value[n] = values[n][k];
      for (int p = 0; p < P; ++p)
        for (int gate = 0; gate < Cell::gates; ++gate) {
          const Vec weight = load(weights + p * stride + gate * kLanes);
          for (int n = 0; n < N; ++n) local[p][n][gate] += weight * broadcast(value[n]);
        }
      for (int gate = 0; H && gate < Cell::gates; ++gate) {
        const HalfVec weight = load<HalfVec>(half_weights + gate * kLanes / 2);
        for (int n = 0; n < N; ++n) half[n][gate] += weight * broadcast<HalfVec>(value[n]);
      }
    }
    for (int n = 0; n < N; ++n)
      for (int gate = 0; gate < Cell::gates; ++gate) {
        for (int p = 0; p < P; ++p) sums[p][n][slot(gate)] = local[p][n][gate];
        if (H) store(reinterpret_cast<float*>(&sums[P][n][slot(gate)]), half[n][gate]);
      }
  }

  void pack(const float* from, int columns, const Buffer& to) const {
    for (int gate = 0; gate < Cell::gates; ++gate)
      for (int unit = 0; unit < units; ++unit)
        for (int k = 0; k < columns; ++k)
          *weight(to, columns, unit, gate, k) = from[int64_t(gate * units + unit) * columns + k];
  }
};

// The small cell as inference uses it: the rows of its gates side by side, because a panel of its own for each few
// units would be mostly padding. The sums of the hidden units that skimming changes, the first ones, and of those
// that last until the next token is read are apart: the second kind is added up once in a run of skimmed tokens. A
// GRU's slots that only inputs or only hidden units reach lie at the two ends, so that neither touches the other's (0
// times infinity is no zero).
template <class Cell>
struct DenseCell {
  DenseCell(const CellWeights& from, int units, int inputs, int hiddens)
      : units(units),
        inputs(inputs),
        hiddens(hiddens),
        first_hidden(Cell::has_cell ? 0 : whole(units)),
        input_width(first_hidden + whole((Cell::has_cell ? 4 : 2) * units)),
        width(input_width + first_hidden),
        starts{first_hidden, first_hidden + units, Cell::has_cell ? 2 * units : 0,
               Cell::has_cell ? 3 * units : input_width},
        input(int64_t(inputs) * input_width),
        hidden(int64_t(hiddens) * (width - first_hidden) + kLanes),
        bias(width) {
    for (int gate = 0; gate < Cell::gates; ++gate)
      for (int unit = 0; unit < units; ++unit) {
        const int row = gate * units + unit;
        const int to_input = starts[Cell::input_slot(gate)] + unit, to_hidden = starts[Cell::hidden_slot(gate)] + unit;
        for (int k = 0; k < inputs; ++k)
          input.at(int64_t(k) * input_width)[to_input] = from.input[int64_t(row) * inputs + k];
        float* column = hidden.at(to_hidden - first_hidden);
        for (int k = 0; k < hiddens; ++k, column += width - first_hidden)
          *column = from.hidden[int64_t(row) * hiddens + k];
        bias.at(0)[to_input] += from.input_bias[row];
        bias.at(0)[to_hidden] += from.hidden_bias[row];
      }
  }

  const int units, inputs, hiddens;
  // Inputs reach the sums before input_width, hidden units those from first_hidden.
  const int first_hidden, input_width, width;
  const int starts[4];  // of the slots
  Buffer input, hidden, bias;

  // Rows of `width` sums += weights times inputs, or the hidden units that skimming leaves.
  template <class Values, class Sums>
  void add_inputs(int count, const Values& values, const Sums& sums) const {
    multiply(input.at(0), input_width, inputs, count, values, sums);
  }
  template <class Values, class Sums>
  void add_lasting(int count, const Values& values, const Sums& sums) const {
    const int columns = width - first_hidden;
    multiply(hidden.at(int64_t(units) * columns), columns, hiddens - units, count,
             [&](int n) { return values(n) + units; }, [&](int n) { return sums(n) + first_hidden; });
  }
  // A vector of units' slots += weights times the hidden units that skimming changes. Lanes past the units are garbage.
  void add_changing(int first, const float* state, Vec (&slots)[4]) const {
    const float* weights = hidden.at(first) - first_hidden;
    for (int k = 0; k < units; ++k, weights += width - first_hidden) {
      const Vec value = broadcast(state[k]);
      for (int gate = 0; gate < Cell::gates; ++gate) {
        const int slot = Cell::hidden_slot(gate);
        slots[slot] += load(weights + starts[slot]) * value;
      }
    }
  }

  // Bias and input projection of `count` inputs: see `PackedCell::project`.
  template <class Values, class Rows>
  void project(int count, const Values& values, const Rows& rows) const {
    for (int n = 0; n < count; ++n) memcpy(rows(n), bias.at(0), width * sizeof(float));
    add_inputs(count, values, rows);
  }

 private:
  static int whole(int floats) { return (floats + kLanes - 1) / kLanes * kLanes; }

  // sums(n) += the weights (`depth`, `columns`) times values(n), for `count` of each.
  template <class Values, class Sums>
  static void multiply(const float* weights, int columns, int depth, int count, const Values& values,
                       const Sums& sums) {
    constexpr int kMostAlone = 12, kMostTogether = 4;  // Vectors of sums that one row, or several, have in registers.
    const int vectors = columns / kLanes, most = count == 1 ? kMostAlone : kMostTogether;
    const int runs = (vectors + most - 1) / most;
    for (int first_row = 0; first_row < depth; first_row += kRows)
      for (int run = 0; run < runs; ++run) {
        const int first = run * vectors / runs, rows = depth - first_row < kRows ? depth - first_row : kRows;
        call_rest<kMostAlone>((run + 1) * vectors / runs - first, first * kLanes, [&](auto n_vectors, int column) {
          constexpr int V = decltype(n_vectors)::value, kMost = V > kMostTogether ? 1 : rows_in_registers(V);
          in_runs<kMost>(count, [&](auto n_rows, int offset) {
            constexpr int N = decltype(n_rows)::value;
            const float* from[N];
            float* to[N];
            for (int n = 0; n < N; ++n) {
              from[n] = values(offset + n) + first_row;
              to[n] = sums(offset + n) + column;
            }
            accumulate<V, N>(weights + int64_t(first_row) * columns + column, columns, rows, from, 1, to);
          });
        });
      }
  }
};

// Whether a token is read. What is not a number is read: it spreads as in a plain layer, and is not skipped in silence.
inline bool reads(float margin, float threshold) { return !(margin <= threshold); }

// Weights of the margin: logit of "read" less logit of "skim". As in `DenseCell`, the hidden units that skimming
// changes are summed apart from those that last.
struct PackedDecision {
  PackedDecision(const DecisionWeights& from, int inputs, int hiddens, int changing)
      : inputs(inputs), hiddens(hiddens), changing(changing), input(inputs + kLanes), hidden(hiddens + kLanes) {
    for (int k = 0; k < inputs; ++k) input.at(0)[k] = from.input[k] - from.input[inputs + k];
    for (int k = 0; k < hiddens; ++k) hidden.at(0)[k] = from.hidden[k] - from.hidden[hiddens + k];
    if (from.input_bias) bias = from.input_bias[0] + from.hidden_bias[0] - (from.input_bias[1] + from.hidden_bias[1]);
  }

  const int inputs, hiddens, changing;
  Buffer input, hidden;
  float bias = 0;

  float project(const float* row) const { return bias + dot(input.at(0), row, inputs, load_some); }
  float lasting(const float* state) const { return dot_state(changing, hiddens, state); }
  // Infinite logits have no softmax (inf - inf): the reference's NaN.
  float margin(float projected, const float* state, float lasting) const {
    const float total = projected + dot_state(0, changing, state) + lasting;
    return isinf(total) ? NAN : total;
  }

 private:
  float dot_state(int first, int end, const float* state) const {
    return dot(hidden.at(first), state + first, end - first, [](const float* from, int count) {
      return select_first(count, load(from), Vec{});  // Readable to the end of the vector: more state lies behind.
    });
  }

  template <class LoadLast>
  static float dot(const float* weights, const float* row, int count, const LoadLast& load_last) {
    Vec sums[4] = {};
    int k = 0;
    for (; k + 4 * kLanes <= count; k += 4 * kLanes)
      for (int i = 0; i < 4; ++i) sums[i] += load(weights + k + i * kLanes) * load(row + k + i * kLanes);
    for (; k + kLanes <= count; k += kLanes) sums[0] += load(weights + k) * load(row + k);
    if (k < count) sums[0] += load(weights + k) * load_last(row + k, count - k);
    return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
};

}  // namespace
}  // namespace skimrnn
