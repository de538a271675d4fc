// The recurrent layers, for the instruction set that the including file is compiled for.
//
// Weights are packed into panels of one vector of units with all their gates side by side: (panels, K, gates, lanes).
// A step walks the panels; within one, the sums of all gates stay in registers from the bias to the new state, so each
// weight is read once and nothing is stored in between. A sum always runs in the same order (bias, inputs, hidden
// units), however many sequences share a pass: batch size, threads and blocks ahead do not change a single bit.
//
// Each gate has a slot among four: input, forget, candidate, output for an LSTM; reset, update, new (input side),
// new (hidden side) for a GRU, whose last two meet only after the reset gate is known.
#pragma once

#include <math.h>
#include <string.h>

#include "layer.hpp"
#include "vector.hpp"

namespace skimrnn {
namespace {

constexpr int kPanel = 4 * kLanes;   // Floats of one panel's slots.
constexpr int kPanelsAtOnce = 3;     // Panels per pass for a lone sequence: sums enough to hide the latency of adding.
constexpr int kLoneBlock = 64;       // Tokens that the cheap projections run ahead, a power of two: of a lone sequence,
constexpr int kSharedBlock = 16;     // of each of several.
constexpr int kMostCertain = 32;     // Tokens of a lone sequence that the big cell's projection takes at once: of a
constexpr int kMostSpeculated = 8;   // plain layer, or where each may turn out to be skimmed.
constexpr int kChunk = 256;          // Tokens whose gradients of the gates are kept before they go into the weights'.
constexpr int kRows = 128;           // Rows of a panel that a pass of training keeps in the first-level cache.

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

struct Lstm {
  static constexpr int gates = 4;
  static constexpr bool has_cell = true;
  static constexpr int input_slot(int gate) { return gate; }
  static constexpr int hidden_slot(int gate) { return gate; }

  static void activate(Vec (&gate)[4]) {
    gate[0] = sigmoid(gate[0]);
    gate[1] = sigmoid(gate[1]);
    gate[2] = tanh(gate[2]);
    gate[3] = sigmoid(gate[3]);
  }

  static void next(const Vec (&gate)[4], Vec, Vec cell, Vec& new_hidden, Vec& new_cell) {
    new_cell = gate[1] * cell + gate[0] * gate[2];
    new_hidden = gate[3] * tanh(new_cell);
  }

  // From the gradient of the new state: that of the gates before their activation, and of the old state by this path.
  static void backward(const Vec (&gate)[4], Vec, Vec cell, Vec d_new_hidden, Vec d_new_cell, Vec (&d_gate)[4],
                       Vec& d_hidden, Vec& d_cell) {
    Vec squashed = tanh(gate[1] * cell + gate[0] * gate[2]);
    Vec d = d_new_cell + d_new_hidden * gate[3] * (1.0f - squashed * squashed);
    d_gate[0] = d * gate[2] * gate[0] * (1.0f - gate[0]);
    d_gate[1] = d * cell * gate[1] * (1.0f - gate[1]);
    d_gate[2] = d * gate[0] * (1.0f - gate[2] * gate[2]);
    d_gate[3] = d_new_hidden * squashed * gate[3] * (1.0f - gate[3]);
    d_hidden = Vec{};
    d_cell = d * gate[1];
  }
};

struct Gru {
  static constexpr int gates = 3;
  static constexpr bool has_cell = false;
  static constexpr int input_slot(int gate) { return gate; }
  static constexpr int hidden_slot(int gate) { return gate == 2 ? 3 : gate; }

  static void activate(Vec (&gate)[4]) {
    gate[0] = sigmoid(gate[0]);
    gate[1] = sigmoid(gate[1]);
    gate[2] = tanh(gate[2] + gate[0] * gate[3]);
  }

  static void next(const Vec (&gate)[4], Vec hidden, Vec, Vec& new_hidden, Vec&) {
    new_hidden = gate[2] + gate[1] * (hidden - gate[2]);
  }

  static void backward(const Vec (&gate)[4], Vec hidden, Vec, Vec d_new_hidden, Vec, Vec (&d_gate)[4], Vec& d_hidden,
                       Vec& d_cell) {
    Vec d_new = d_new_hidden * (1.0f - gate[1]) * (1.0f - gate[2] * gate[2]);
    d_gate[0] = d_new * gate[3] * gate[0] * (1.0f - gate[0]);
    d_gate[1] = d_new_hidden * (hidden - gate[2]) * gate[1] * (1.0f - gate[1]);
    d_gate[2] = d_new;
    d_gate[3] = d_new * gate[0];
    d_hidden = d_new_hidden * gate[1];
    d_cell = Vec{};
  }
};

// One cell's weights in panels, and the sums over them.
template <class Cell>
struct PackedCell {
  PackedCell(const CellWeights& from, int units, int inputs, int hiddens)
      : units(units),
        panels((units + kLanes - 1) / kLanes),
        inputs(inputs),
        hiddens(hiddens),
        input(int64_t(panels) * inputs * Cell::gates * kLanes),
        hidden(int64_t(panels) * hiddens * Cell::gates * kLanes),
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

  const int units, panels, inputs, hiddens;
  Buffer input, hidden, bias;

  int row_size() const { return panels * kPanel; }

  template <int P, int N>
  void start_from_bias(int panel, Vec (&sums)[P][N][4]) const {
    for (int p = 0; p < P; ++p)
      for (int n = 0; n < N; ++n)
        for (int slot = 0; slot < 4; ++slot) sums[p][n][slot] = load(bias.at((panel + p) * kPanel + slot * kLanes));
  }

  template <int P, int N>
  void add_inputs(int panel, const float* const (&rows)[N], Vec (&sums)[P][N][4]) const {
    add<P, N>(input, panel, inputs, rows, sums, [](int gate) { return Cell::input_slot(gate); });
  }

  template <int P, int N>
  void add_hiddens(int panel, const float* const (&rows)[N], Vec (&sums)[P][N][4]) const {
    add<P, N>(hidden, panel, hiddens, rows, sums, [](int gate) { return Cell::hidden_slot(gate); });
  }

  // Bias and input projection of `count` inputs, values(n), into rows(n).
  template <class Values, class Rows>
  void project(int count, const Values& values, const Rows& rows) const {
    for (int panel = 0; panel < panels; ++panel)
      in_runs<kGroup>(count, [&](auto n_tokens, int first) {
        constexpr int N = decltype(n_tokens)::value;
        const float* tokens[N];
        for (int n = 0; n < N; ++n) tokens[n] = values(first + n);
        Vec sums[1][N][4];
        start_from_bias(panel, sums);
        add_inputs(panel, tokens, sums);
        for (int n = 0; n < N; ++n)
          for (int slot = 0; slot < 4; ++slot)
            store(rows(first + n) + panel * kPanel + slot * kLanes, sums[0][n][slot]);
      });
  }

 private:
  // The sums are copied to locals that no pointer can reach, so that they stay in registers. Never inlined: the loop
  // needs every register, and what the caller keeps in some would push a sum out to memory.
  template <int P, int N, class Slot>
  [[gnu::noinline]] static void add(const Buffer& packed, int panel, int width, const float* const (&rows)[N],
                                    Vec (&sums)[P][N][4], const Slot& slot) {
    const int64_t stride = int64_t(width) * Cell::gates * kLanes;
    const float* weights = packed.at(panel * stride);
    Vec local[P][N][Cell::gates];
    const float* values[N];
    for (int n = 0; n < N; ++n) {
      values[n] = rows[n];
      for (int p = 0; p < P; ++p)
        for (int gate = 0; gate < Cell::gates; ++gate) local[p][n][gate] = sums[p][n][slot(gate)];
    }
    for (int k = 0; k < width; ++k, weights += Cell::gates * kLanes) {
      Vec value[N];
      for (int n = 0; n < N; ++n) value[n] = broadcast(values[n][k]);
      for (int p = 0; p < P; ++p)
        for (int gate = 0; gate < Cell::gates; ++gate) {
          const Vec weight = load(weights + p * stride + gate * kLanes);
          for (int n = 0; n < N; ++n) local[p][n][gate] += weight * value[n];
        }
    }
    for (int n = 0; n < N; ++n)
      for (int p = 0; p < P; ++p)
        for (int gate = 0; gate < Cell::gates; ++gate) sums[p][n][slot(gate)] = local[p][n][gate];
  }

  void pack(const float* from, int width, const Buffer& to) const {
    for (int panel = 0; panel < panels; ++panel)
      for (int gate = 0; gate < Cell::gates; ++gate) {
        const int lanes = units - panel * kLanes < kLanes ? units - panel * kLanes : kLanes;
        const float* rows = from + int64_t(gate * units + panel * kLanes) * width;
        float* column = to.at(int64_t(panel) * width * Cell::gates * kLanes + gate * kLanes);
        for (int k = 0; k < width; ++k, column += Cell::gates * kLanes)
          for (int lane = 0; lane < lanes; ++lane) column[lane] = rows[int64_t(lane) * width + k];
      }
  }
};

// The small cell as inference uses it: the rows of its gates side by side, because a panel of its own for each few
// units would be mostly padding. The sums of the hidden units that skimming changes, the first ones, and of those
// that last until the next token is read are apart: the second kind is added up once in a run of skimmed tokens. A GRU's
// slots that only inputs or only hidden units reach lie at the two ends, so that neither touches the other's (0 times
// infinity is no zero).
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

// Weights of the margin: logit of "read" less logit of "skim". As in `DenseCell`, the hidden units that skimming changes
// are summed apart from those that last.
struct PackedDecision {
  PackedDecision(const DecisionWeights& from, int inputs, int hiddens, int changing)
      : inputs(inputs), hiddens(hiddens), changing(changing), input(inputs + kLanes), hidden(hiddens + kLanes) {
    for (int k = 0; k < inputs; ++k) input.at(0)[k] = from.input[k] - from.input[inputs + k];
    for (int k = 0; k < hiddens; ++k) hidden.at(0)[k] = from.hidden[k] - from.hidden[hiddens + k];
    if (inputs) bias = from.input_bias[0] + from.hidden_bias[0] - (from.input_bias[1] + from.hidden_bias[1]);
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

// One sequence on its way. State arrays are padded to whole panels of the big cell.
struct Track {
  int64_t rank;  // among all sequences, by falling length
  int64_t sequence;
  int64_t length;
  float* hidden;
  float* next_hidden;
  float* cell;
  const float* input = nullptr;       // x_t
  const float* projected_big = nullptr;    // Its projections where they are known, else null.
  const float* projected_small = nullptr;
  // Inference only: what the hidden units that skimming leaves add to the margin and to the small cell's sums. It lasts
  // from one read token to the next.
  bool lasts = false;
  float lasting_margin = 0;
  float* lasting_sums = nullptr;
  int64_t step = 0;
  float state_margin = INFINITY;  // What the state adds to the margin.
  float* ahead = nullptr;  // Cheap projections of a block of tokens.
  // Training only.
  float share = 1;  // of the big cell in the mixture
  float* gates = nullptr;
  float* saved_cell = nullptr;
  float* skim_hidden = nullptr;
  float* skim_cell = nullptr;
  float* d_hidden = nullptr;
  float* d_cell = nullptr;
  float* d_gates = nullptr;
};

// Walk the panels of `cell` for all tracks and hand the sums of each panel and track to `finish`.
template <class Cell, class Finish>
void walk(const PackedCell<Cell>& cell, const float* Track::*projected, Track* const* tracks, int count, bool backwards,
          const Finish& finish) {
  auto visit = [&](auto n_panels, int panel, auto n_tracks, int first) {
    constexpr int P = decltype(n_panels)::value, N = decltype(n_tracks)::value;
    const float* rows[N];
    Vec sums[P][N][4];
    if (tracks[first]->*projected) {
      for (int n = 0; n < N; ++n)
        for (int p = 0; p < P; ++p)
          for (int slot = 0; slot < 4; ++slot)
            sums[p][n][slot] = load(tracks[first + n]->*projected + (panel + p) * kPanel + slot * kLanes);
    } else {
      for (int n = 0; n < N; ++n) rows[n] = tracks[first + n]->input;
      cell.start_from_bias(panel, sums);
      cell.add_inputs(panel, rows, sums);
    }
    for (int n = 0; n < N; ++n) rows[n] = tracks[first + n]->hidden;
    cell.add_hiddens(panel, rows, sums);
    for (int p = 0; p < P; ++p)
      for (int n = 0; n < N; ++n) finish(panel + p, *tracks[first + n], sums[p][n]);
  };
  if (count == 1) {
    // Every other step backwards: it starts with the weights that the last step left in the cache.
    const int runs = (cell.panels + kPanelsAtOnce - 1) / kPanelsAtOnce;
    for (int i = 0; i < runs; ++i) {
      const int run = backwards ? runs - 1 - i : i, first = run * cell.panels / runs;
      call_rest<kPanelsAtOnce>((run + 1) * cell.panels / runs - first, first,
                               [&](auto n, int panel) { visit(n, panel, Count<1>{}, 0); });
    }
  } else {
    for (int panel = 0; panel < cell.panels; ++panel)
      in_runs<kGroup>(count, [&](auto n, int first) { visit(Count<1>{}, panel, n, first); });
  }
}

template <class Cell>
class Engine final : public Layer {
 public:
  Engine(const Sizes& sizes, const CellWeights& big, const CellWeights& small, const DecisionWeights& decision)
      : sizes_(sizes),
        big_(big, sizes.hidden, sizes.input, sizes.hidden),
        small_(small, sizes.skims ? sizes.small : 0, sizes.input, sizes.hidden),
        dense_(small, sizes.skims ? sizes.small : 0, sizes.input, sizes.hidden),
        decision_(decision, sizes.skims ? sizes.input : 0, sizes.skims ? sizes.hidden : 0, sizes.skims ? sizes.small : 0),
        padded_(big_.panels * kLanes),
        small_offset_(big_.row_size()),
        decision_offset_(big_.row_size() + small_.row_size()) {}

  int lanes() const override { return kLanes; }
  int folded_size() const override { return big_.row_size() + cheap_size(); }

  void fold(const float* inputs, int64_t count, float* rows) const override {
    for (int64_t first = 0; first < count; first += kMostCertain) {
      const int n = int(smaller(kMostCertain, count - first));
      auto values = [&](int n) { return inputs + (first + n) * sizes_.input; };
      auto row = [&](int n) { return rows + (first + n) * folded_size(); };
      big_.project(n, values, row);
      project_cheap(n, values, [&](int n) { return row(n) + big_.row_size(); });
    }
  }

  void infer(const Batch& batch, const Results& results) const override {
    Team team(*this, batch, 3);
    share_out(team.threads, team.threads,
              [&](int thread) { infer_tracks(batch, results, team.tracks(thread), team.count(thread)); });
  }

  void forward(const Batch& batch, const Results& results, const Tape& tape) const override {
    Team team(*this, batch, 5);
    share_out(team.threads, team.threads,
              [&](int thread) { forward_tracks(batch, results, tape, team.tracks(thread), team.count(thread)); });
  }

  // In chunks of steps, from the last: first the gates' gradients, each thread its sequences; then what they make of
  // the weights, each thread its panels; last that of the inputs. A chunk is the same for any number of threads, and so
  // is the order of each sum.
  void backward(const Batch& batch, const Results& results, const Tape& tape,
                const Gradients& gradients) const override {
    Team team(*this, batch, 7);
    const int64_t steps = larger(1, kChunk / larger(1, batch.sequences)), most = steps * batch.sequences;
    const int64_t longest = batch.sequences ? batch.lengths[team.order[0]] : 0;
    const Transposed hidden(*this, sizes_.hidden, &PackedCell<Cell>::hidden, decision_.hidden, Cell::hidden_slot);
    const Transposed input(*this, gradients.inputs ? sizes_.input : 0, &PackedCell<Cell>::input, decision_.input,
                           Cell::input_slot);
    WeightSums sums(*this);
    Buffer gates(most * row_size()), sources(most * sums.width), tokens(2 * most), bases(2 * steps);
    Buffer d_inputs(most * input.padded);
    Chunk chunk{0, 0, 0, gates.at(0), sources.at(0), reinterpret_cast<int64_t*>(tokens.at(0)),
                reinterpret_cast<int64_t*>(bases.at(0))};
    for (int64_t end = longest; end > 0; end = chunk.first) {
      chunk.end = end;
      chunk.first = larger(0, end - steps);
      chunk.count = 0;
      for (int64_t t = chunk.first; t < end; ++t) {
        chunk.bases[t - chunk.first] = chunk.count;
        for (int64_t n = 0; n < batch.sequences && batch.lengths[team.order[n]] > t; ++n)
          chunk.tokens[chunk.count++] = batch.token(t, team.order[n]);
      }
      share_out(team.threads, team.threads, [&](int thread) {
        backward_tracks(batch, results, tape, gradients, hidden, chunk, sums.width, team.tracks(thread),
                        team.count(thread));
      });
      share_out(team.threads, sums.panels + 1, [&](int panel) { sums.add(chunk, panel); });
      if (input.padded)
        share_out(team.threads, int((chunk.count + kRows - 1) / kRows), [&](int block) {
          const int64_t first = int64_t(block) * kRows;
          const int count = int(smaller(kRows, chunk.count - first));
          float* to = d_inputs.at(first * input.padded);
          clear(to, int64_t(count) * input.padded);
          input.multiply(count, [&](int n) { return chunk.gates + (first + n) * row_size(); },
                         [&](int n) { return to + int64_t(n) * input.padded; });
          for (int n = 0; n < count; ++n)
            copy(gradients.inputs + chunk.tokens[first + n] * sizes_.input, to + int64_t(n) * input.padded,
                 sizes_.input);
        });
    }
    for (int64_t n = 0; n < batch.sequences; ++n) {
      const int64_t row = team.all[n].sequence * sizes_.hidden;
      copy(gradients.hidden + row, team.all[n].d_hidden, sizes_.hidden);
      if (Cell::has_cell) copy(gradients.cell + row, team.all[n].d_cell, sizes_.hidden);
    }
    if (gradients.inputs)
      for (int64_t n = 0; n < batch.sequences; ++n)
        for (int64_t t = batch.lengths[n]; t < batch.steps; ++t)
          clear(gradients.inputs + (t * batch.sequences + n) * sizes_.input, sizes_.input);
    sums.write(gradients);
  }

 private:
  static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
  static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

  // The tracks of all sequences: shared out among the threads by falling length, those of a thread side by side. A
  // thread's tracks that have tokens left are always its first ones.
  struct Team {
    Team(const Engine& engine, const Batch& batch, int arrays)
        : order_memory(2 * batch.sequences),
          order(reinterpret_cast<int64_t*>(order_memory.at(0))),
          threads(int(smaller(batch.threads, batch.sequences))),
          sequences(batch.sequences),
          track_memory(batch.sequences * int64_t(sizeof(Track)) / 4),
          all(reinterpret_cast<Track*>(track_memory.at(0))),
          states(batch.sequences * arrays * engine.padded_) {
      sort_by_length(batch.lengths, sequences, order);
      const int size = engine.sizes_.hidden;
      for (int thread = 0; thread < threads; ++thread)
        for (int n = 0; n < count(thread); ++n) {
          Track& track = tracks(thread)[n] = Track{};
          track.rank = thread + int64_t(n) * threads;
          track.sequence = order[track.rank];
          track.length = batch.lengths[track.sequence];
          float** const wanted[] = {&track.hidden,      &track.next_hidden, &track.cell,  &track.skim_hidden,
                                    &track.skim_cell,   &track.d_hidden,    &track.d_cell};
          for (int array = 0; array < arrays; ++array) *wanted[array] = states.take(engine.padded_);
          copy(track.hidden, batch.hidden + track.sequence * size, size);
          if (Cell::has_cell) copy(track.cell, batch.cell + track.sequence * size, size);
        }
    }

    int count(int thread) const { return int((sequences - thread + threads - 1) / threads); }
    Track* tracks(int thread) const {
      const int64_t each = sequences / threads, longer = sequences % threads;
      return all + thread * each + smaller(thread, longer);
    }

    Buffer order_memory;
    int64_t* order;
    int threads;
    int64_t sequences;
    Buffer track_memory;
    Track* all;
    Buffer states;
  };

  // Call `work(share)` for each of `shares` on so many threads.
  template <class Work>
  static void share_out(int threads, int shares, const Work& work) {
    run_on_threads(
        threads, shares, [](int share, const void* context) { (*static_cast<const Work*>(context))(share); }, &work);
  }

  static void copy(float* to, const float* from, int count) { memcpy(to, from, count * sizeof(float)); }
  static void clear(float* to, int64_t count) { memset(to, 0, count * sizeof(float)); }

  // Floats in a row of training's gates: panels of the big cell, of the small cell, one vector for the decision.
  int row_size() const { return decision_offset_ + kLanes; }

  // Floats of the projections that each token needs: of the small cell and, in a vector, of the decision.
  int cheap_size() const { return dense_.width + kLanes; }

  template <class Values, class Rows>
  void project_cheap(int count, const Values& values, const Rows& rows) const {
    if (!sizes_.skims) return;
    dense_.project(count, values, rows);
    for (int n = 0; n < count; ++n) rows(n)[dense_.width] = decision_.project(values(n));
  }

  // The big cell's projections that a lone sequence makes ahead. They share a pass over its weights, which is bound by
  // fetching them: those of the next tokens that would be read by the state at hand. Their number doubles where all
  // were read in the end, and is halved where few were.
  class Lookahead {
   public:
    Lookahead(const Engine& engine, const Batch& batch, const Track& track, bool used)
        : engine_(engine),
          batch_(batch),
          track_(track),
          most_(engine.sizes_.skims ? 2 : kMostCertain),
          rows_(used ? (engine.sizes_.skims ? kMostSpeculated : kMostCertain) * int64_t(engine.big_.row_size()) : 0) {}

    // Of the track's step.
    const float* row() {
      const int64_t t = track_.step;
      if (t >= end_) forget();
      if (t >= end_ || places_[t % kLoneBlock] < 0) project();
      ++used_;
      return row(places_[t % kLoneBlock]);
    }

   private:
    void project() {
      const bool skims = engine_.sizes_.skims;
      if (skims && used_ == made_) most_ = smaller(2 * most_, kMostSpeculated);
      if (skims && 2 * used_ < made_) most_ = larger(2, most_ / 2);
      forget();
      used_ = made_ = 0;
      const float* inputs[kMostCertain];
      const int64_t t = track_.step;
      end_ = smaller(t - t % kLoneBlock + kLoneBlock, track_.length);
      for (int64_t next = t; next < end_ && made_ < most_; ++next) {
        if (skims && next > t && !(engine_.ahead(track_, next, kLoneBlock)[engine_.dense_.width] +
                                   track_.state_margin > batch_.threshold)) continue;
        places_[next % kLoneBlock] = int8_t(made_);
        inputs[made_++] = engine_.input(batch_, track_, next);
      }
      engine_.big_.project(made_, [&](int n) { return inputs[n]; }, [&](int n) { return row(n); });
    }

    void forget() { memset(places_, -1, sizeof places_); }
    float* row(int n) const { return rows_.at(int64_t(n) * engine_.big_.row_size()); }

    const Engine& engine_;
    const Batch& batch_;
    const Track& track_;
    int64_t most_, end_ = 0;
    int made_ = 0, used_ = 0;
    int8_t places_[kLoneBlock];  // of the tokens of a block among the rows
    Buffer rows_;
  };

  const float* input(const Batch& batch, const Track& track, int64_t t) const {
    return batch.inputs + batch.token(t, track.sequence) * sizes_.input;
  }

  // The cheap projections of a token in the track's block.
  float* ahead(const Track& track, int64_t t, int block) const { return track.ahead + (t & (block - 1)) * cheap_size(); }

  void write_step(const Batch& batch, const Results& results, int64_t t, const Track& track) const {
    const int64_t token = batch.token(t, track.sequence);
    float* const output = results.outputs + token * sizes_.hidden;
    copy(output, track.hidden, sizes_.hidden);
    if (t + 1 < track.length) {
      for (int line = 0; line < sizes_.hidden; line += 16)
        __builtin_prefetch(output + batch.next() * sizes_.hidden + line, 1, 2);
      return;
    }
    copy(results.last_hidden + track.sequence * sizes_.hidden, track.hidden, sizes_.hidden);
    if (Cell::has_cell) copy(results.last_cell + track.sequence * sizes_.hidden, track.cell, sizes_.hidden);
    for (int64_t past = track.length; past < batch.steps; ++past) {
      const int64_t empty = past * batch.sequences + track.sequence;
      clear(results.outputs + empty * sizes_.hidden, sizes_.hidden);
      if (sizes_.skims) {
        clear(results.log_p + 2 * empty, 2);
        results.read[empty] = false;
      }
    }
  }

  // Log-probabilities from margins, a vector of them at a time.
  class LogProbabilities {
   public:
    ~LogProbabilities() { write(); }
    void add(float margin, float* log_p) {
      margins_[count_] = margin;
      to_[count_++] = log_p;
      if (count_ == kLanes) write();
    }

   private:
    void write() {
      const Vec margins = load(margins_), size = margins < 0.0f ? -margins : margins;
      const Vec rest = log_one_plus(exp_bounded(at_least(-size, -87.0f)));
      const Vec read = (margins < 0.0f ? margins : Vec{}) - rest, skim = (margins < 0.0f ? Vec{} : -margins) - rest;
      for (int n = 0; n < count_; ++n) {
        to_[n][0] = read[n];
        to_[n][1] = skim[n];
      }
      count_ = 0;
    }

    float margins_[kLanes] = {};
    float* to_[kLanes];
    int count_ = 0;
  };

  static void swap_hidden(Track& track) {
    float* old = track.hidden;
    track.hidden = track.next_hidden;
    track.next_hidden = old;
  }

  // The table lies far away: ask for what the step after the next needs at any rate, and for what the big cell needs if
  // the state at hand would have the next token read.
  void ask_ahead(const Batch& batch, const Track& track) const {
    auto row = [&](int64_t t) { return batch.table + batch.words[batch.token(t, track.sequence)] * folded_size(); };
    const int64_t t = track.step;
    if (t + 2 < track.length) ask_for(row(t + 2) + big_.row_size(), cheap_size());
    if (t + 1 >= track.length) return;
    const float* next = row(t + 1);
    if (sizes_.skims && !(next[big_.row_size() + dense_.width] + track.state_margin > batch.threshold)) return;
    ask_for(next, big_.row_size());
  }

  // Into the second-level cache: much is under way at a time.
  static void ask_for(const float* from, int count) {
    for (int line = 0; line < count; line += 16) __builtin_prefetch(from + line, 0, 2);
  }

  // What inference of a thread's tracks shares.
  struct Run {
    const Batch& batch;
    const Results& results;
    const int block;  // Tokens that cheap projections run ahead.
    int64_t end = 0;  // of the block at hand
    LogProbabilities log_p;
  };

  // Block by block, whose tokens lie near each other for all sequences. Within a block each sequence goes on by itself,
  // skimming, to its next token that is read; all that have come to one share the pass over the big cell's weights.
  void infer_tracks(const Batch& batch, const Results& results, Track* tracks, int count) const {
    const bool alone = count == 1 && !batch.table;
    Run run{batch, results, count == 1 ? kLoneBlock : kSharedBlock, 0, {}};
    Buffer lists_memory(8 * int64_t(count) + 16);
    Track** live = reinterpret_cast<Track**>(lists_memory.at(0));
    Track **readers = live + count, **skimmers = readers + count, **starters = skimmers + count;
    Buffer lasting(int64_t(count) * dense_.width + kLanes);
    const bool projects = sizes_.skims && !batch.table;
    Buffer ahead(projects ? int64_t(count) * run.block * cheap_size() : 0);
    for (int n = 0; n < count; ++n) {
      tracks[n].lasting_sums = lasting.take(dense_.width);
      if (projects) tracks[n].ahead = ahead.take(run.block * cheap_size());
    }
    Lookahead lookahead(*this, batch, tracks[0], alone);
    bool backwards = false;
    for (int64_t begin = 0; begin < tracks[0].length; begin += run.block) {
      while (tracks[count - 1].length <= begin) --count;
      run.end = begin + run.block;
      if (projects) project_ahead(run, tracks, count, begin);
      int n_live = count;
      for (int n = 0; n < count; ++n) live[n] = &tracks[n];
      while (n_live) {
        int n_readers = 0, n_skimmers = 0, n_starters = 0;
        for (int n = 0; n < n_live; ++n) {
          const bool lasted = live[n]->lasts;
          if (decide(run, *live[n])) {
            readers[n_readers++] = live[n];
          } else {
            skimmers[n_skimmers++] = live[n];
            if (!lasted) starters[n_starters++] = live[n];
          }
        }
        start_skimming(starters, n_starters);
        for (int n = 0; n < n_skimmers; ++n)
          if (skim_on(run, *skimmers[n])) readers[n_readers++] = skimmers[n];
        if (alone && n_readers) readers[0]->projected_big = lookahead.row();
        if (n_readers) read(readers, n_readers, backwards = !backwards);
        n_live = 0;
        for (int n = 0; n < n_readers; ++n)
          if (step_on(run, *readers[n])) live[n_live++] = readers[n];
      }
    }
  }

  // The cheap projections of a block of tokens of each track. The next track's inputs come while one's are projected.
  void project_ahead(const Run& run, const Track* tracks, int count, int64_t begin) const {
    auto tokens = [&](int n) { return int(smaller(run.block, tracks[n].length - begin)); };
    auto value = [&](int n, int token) { return input(run.batch, tracks[n], begin + token); };
    for (int n = 0; n < count; ++n) {
      for (int token = 0; n + 1 < count && token < tokens(n + 1); ++token) ask_for(value(n + 1, token), sizes_.input);
      project_cheap(tokens(n), [&](int token) { return value(n, token); },
                    [&](int token) { return ahead(tracks[n], begin + token, run.block); });
    }
  }

  // Whether the track's next token is to be read.
  bool decide(Run& run, Track& track) const {
    const Batch& batch = run.batch;
    const int64_t token = batch.token(track.step, track.sequence);
    if (batch.table) {
      track.projected_big = batch.table + batch.words[token] * folded_size();
      track.projected_small = track.projected_big + big_.row_size();
    } else {
      track.input = batch.inputs + token * sizes_.input;
      if (sizes_.skims) track.projected_small = ahead(track, track.step, run.block);
    }
    bool read = true;
    if (sizes_.skims) {
      const float projected = track.projected_small[dense_.width];
      if (!track.lasts) track.lasting_margin = decision_.lasting(track.hidden);
      const float margin = decision_.margin(projected, track.hidden, track.lasting_margin);
      track.state_margin = margin - projected;
      read = margin > batch.threshold;
      run.results.read[token] = read;
      run.log_p.add(margin, run.results.log_p + 2 * token);
      track.lasts = !read;
    }
    if (batch.table) ask_ahead(batch, track);
    return read;
  }

  // What the units that skimming leaves add to the small cell's sums of tracks that have just read.
  void start_skimming(Track* const* tracks, int count) const {
    if (!dense_.units) return;
    for (int n = 0; n < count; ++n) clear(tracks[n]->lasting_sums, dense_.width);
    dense_.add_lasting(count, [=](int n) { return tracks[n]->hidden; }, [=](int n) { return tracks[n]->lasting_sums; });
  }

  // Skim the track's next token and those behind it, up to one that is to be read (true) or to the end of the block.
  bool skim_on(Run& run, Track& track) const {
    do {
      skim(track);
      if (!step_on(run, track)) return false;
    } while (!decide(run, track));
    return true;
  }

  // Write the track's step and go to the next one; whether it lies in the block.
  bool step_on(const Run& run, Track& track) const {
    write_step(run.batch, run.results, track.step, track);
    ++track.step;
    return track.step < run.end && track.step < track.length;
  }

  // One step of the big cell.
  void read(Track* const* readers, int count, bool backwards) const {
    walk(big_, &Track::projected_big, readers, count, backwards, [](int panel, Track& track, Vec (&gates)[4]) {
      Vec hidden = load(track.hidden + panel * kLanes), cell = load(track.cell + panel * kLanes);
      Cell::activate(gates);
      Cell::next(gates, hidden, cell, hidden, cell);
      store(track.next_hidden + panel * kLanes, hidden);
      store(track.cell + panel * kLanes, cell);
    });
    for (int n = 0; n < count; ++n) swap_hidden(*readers[n]);
  }

  // One step of the small cell.
  void skim(Track& track) const {
    const int units = dense_.units;
    // All old units are needed until the last new one is known.
    float* const to = units > kLanes ? track.next_hidden : track.hidden;
    for (int first = 0; first < units; first += kLanes) {
      const Vec hidden = load(track.hidden + first), cell = load(track.cell + first);
      Vec gates[4], new_hidden, new_cell = cell;
      for (int slot = 0; slot < 4; ++slot) gates[slot] = load(track.projected_small + dense_.starts[slot] + first);
      dense_.add_changing(first, track.hidden, gates);
      for (int slot = 0; slot < 4; ++slot) gates[slot] += load(track.lasting_sums + dense_.starts[slot] + first);
      Cell::activate(gates);
      Cell::next(gates, hidden, cell, new_hidden, new_cell);
      store(to + first, select_first(units - first, new_hidden, hidden));
      store(track.cell + first, select_first(units - first, new_cell, cell));
    }
    // As whole vectors, which is how they are loaded next.
    for (int first = 0; to != track.hidden && first < units; first += kLanes)
      store(track.hidden + first, load(to + first));
  }

  // lerp in the way that is exact at both ends.
  static Vec mix(Vec skim, Vec read, float share) {
    return share < 0.5f ? skim + share * (read - skim) : read - (1.0f - share) * (read - skim);
  }

  static void store_slots(float* to, const Vec (&slots)[4]) {
    for (int slot = 0; slot < 4; ++slot) store(to + slot * kLanes, slots[slot]);
  }
  static void load_slots(const float* from, Vec (&slots)[4]) {
    for (int slot = 0; slot < 4; ++slot) slots[slot] = load(from + slot * kLanes);
  }

  void forward_tracks(const Batch& batch, const Results& results, const Tape& tape, Track* tracks, int count) const {
    Buffer lists_memory(2 * int64_t(count) + 16);
    Track** active_tracks = reinterpret_cast<Track**>(lists_memory.at(0));
    for (int n = 0; n < count; ++n) {
      active_tracks[n] = &tracks[n];
      for (int64_t past = tracks[n].length; past < batch.steps; ++past) {
        const int64_t empty = past * batch.sequences + tracks[n].sequence;
        clear(tape.gates + empty * row_size(), row_size());
        if (Cell::has_cell) clear(tape.cells + empty * padded_, padded_);
      }
    }
    LogProbabilities log_p;
    int active = count;
    for (int64_t t = 0; t < tracks[0].length; ++t) {
      while (tracks[active - 1].length <= t) --active;
      for (int n = 0; n < active; ++n) {
        Track& track = tracks[n];
        const int64_t token = batch.token(t, track.sequence);
        track.input = batch.inputs + token * sizes_.input;
        track.gates = tape.gates + token * row_size();
        if (Cell::has_cell) track.saved_cell = tape.cells + token * padded_;
        clear(track.gates + decision_offset_, kLanes);
        if (!sizes_.skims) continue;
        const float margin =
            decision_.margin(decision_.project(track.input), track.hidden, decision_.lasting(track.hidden));
        log_p.add(margin, results.log_p + 2 * token);
        results.read[token] = margin > batch.threshold;
        track.share = results.read[token];
        if (tape.noise) track.share = sigmoid(broadcast((margin + tape.noise[token]) / tape.temperature))[0];
        track.gates[decision_offset_] = track.share;
        copy(track.skim_hidden, track.hidden, padded_);
        copy(track.skim_cell, track.cell, padded_);
      }
      const int units = small_.units, small_offset = small_offset_;
      walk(small_, &Track::projected_small, active_tracks, active, false,
           [=](int panel, Track& track, Vec (&gates)[4]) {
             const Vec hidden = load(track.hidden + panel * kLanes), cell = load(track.cell + panel * kLanes);
             Vec new_hidden, new_cell = cell;
             Cell::activate(gates);
             store_slots(track.gates + small_offset + panel * kPanel, gates);
             Cell::next(gates, hidden, cell, new_hidden, new_cell);
             const int count = units - panel * kLanes;
             store(track.skim_hidden + panel * kLanes, select_first(count, new_hidden, hidden));
             store(track.skim_cell + panel * kLanes, select_first(count, new_cell, cell));
           });
      const bool skims = sizes_.skims;
      walk(big_, &Track::projected_big, active_tracks, active, t & 1, [=](int panel, Track& track, Vec (&gates)[4]) {
        Vec hidden = load(track.hidden + panel * kLanes), cell = load(track.cell + panel * kLanes);
        Cell::activate(gates);
        store_slots(track.gates + panel * kPanel, gates);
        Cell::next(gates, hidden, cell, hidden, cell);
        if (skims) {
          hidden = mix(load(track.skim_hidden + panel * kLanes), hidden, track.share);
          cell = mix(load(track.skim_cell + panel * kLanes), cell, track.share);
        }
        store(track.next_hidden + panel * kLanes, hidden);
        if (Cell::has_cell) {
          store(track.cell + panel * kLanes, cell);
          store(track.saved_cell + panel * kLanes, cell);
        }
      });
      for (int n = 0; n < active; ++n) {
        swap_hidden(tracks[n]);
        write_step(batch, results, t, tracks[n]);
      }
    }
  }

  // Weights by rows of gates, as the way back needs them: panels of up to 4 vectors of columns, as even as they come,
  // each (rows, vectors, lanes).
  struct Transposed {
    template <class Slot>
    Transposed(const Engine& engine, int columns, const Buffer PackedCell<Cell>::* weights, const Buffer& decision,
               const Slot& slot)
        : rows(engine.rows()),
          vectors((columns + kLanes - 1) / kLanes),
          panels((vectors + 3) / 4),
          padded(vectors * kLanes),
          memory(int64_t(rows) * padded) {
      auto put = [&](int row, int column, float value) {
        int panel = 0;
        while (start(panel + 1) <= column) ++panel;
        const int width = start(panel + 1) - start(panel);
        memory.at(int64_t(start(panel)) * rows)[int64_t(row) * width + column - start(panel)] = value;
      };
      const PackedCell<Cell>* const cells[] = {&engine.big_, &engine.small_};
      int row = 0;
      for (const PackedCell<Cell>* cell : cells)
        for (int panel = 0; panel < cell->panels; ++panel, row += kPanel)
          for (int column = 0; column < columns; ++column)
            for (int gate = 0; gate < Cell::gates; ++gate)
              for (int lane = 0; lane < kLanes; ++lane)
                put(row + slot(gate) * kLanes + lane, column,
                    (cell->*weights).at(((int64_t(panel) * columns + column) * Cell::gates + gate) * kLanes)[lane]);
      if (engine.sizes_.skims)
        for (int column = 0; column < columns; ++column) put(row, column, decision.at(0)[column]);
    }

    // sums(n) += gates(n) times the weights, for `count` rows of each.
    template <class Gates, class Sums>
    void multiply(int count, const Gates& gates, const Sums& sums) const {
      for (int panel = 0; panel < panels; ++panel) {
        const int first = start(panel), width = start(panel + 1) - first;
        for (int row = 0; row < rows; row += kRows) {
          const int height = int(smaller(kRows, rows - row));
          const float* weights = memory.at(int64_t(first) * rows + int64_t(row) * width);
          in_runs<kGroup>(count, [&](auto n_rows, int offset) {
            constexpr int N = decltype(n_rows)::value;
            const float* values[N];
            float* to[N];
            for (int n = 0; n < N; ++n) {
              values[n] = gates(offset + n) + row;
              to[n] = sums(offset + n) + first;
            }
            call_rest<4>(width / kLanes, 0, [&](auto v, int) {
              constexpr int V = decltype(v)::value;
              accumulate<V, N>(weights, V * kLanes, height, values, 1, to);
            });
          });
        }
      }
    }

    // The first column of a panel.
    int start(int panel) const { return panel * vectors / (panels ? panels : 1) * kLanes; }

    const int rows, vectors, panels, padded;
    Buffer memory;
  };

  // Some steps on the way back. Their tokens lie by steps, and by rank within one.
  struct Chunk {
    int64_t first, end;  // steps
    int64_t count;       // tokens
    float* gates;        // (count, row_size): the gradient of the gates
    float* sources;      // (count, width of WeightSums): what the weights are multiplied with
    int64_t* tokens;     // `Batch::token` of each
    int64_t* bases;      // of each step
  };

  // The gradient of all weights, packed as they are. The columns are x, h_{t-1} and 1, whose weights are the biases.
  struct WeightSums {
    explicit WeightSums(const Engine& engine)
        : engine(engine),
          panels(engine.big_.panels + engine.small_.panels),
          columns(engine.sizes_.input + engine.sizes_.hidden + 1),
          width((columns + 15) / 32 * 32 + 16),  // An odd number of cache lines: rows meet in few sets.
          memory(int64_t(panels) * columns * kPanel + int64_t(columns) * kLanes) {}

    // One panel's share of a chunk; the last one is the decision's.
    void add(const Chunk& chunk, int panel) const {
      if (panel < panels) return add<4, kGroup>(chunk, panel);
      if (engine.sizes_.skims) add<1, rows_in_registers(1)>(chunk, panel);
    }

    template <int V, int Most>
    void add(const Chunk& chunk, int panel) const {
      const int64_t row_size = engine.row_size();
      float* to = memory.at(int64_t(panel) * columns * kPanel);
      alignas(64) float gates[kRows * V * kLanes];
      for (int64_t first = 0; first < chunk.count; first += kRows) {
        const int count = int(smaller(kRows, chunk.count - first));
        for (int n = 0; n < count; ++n)
          copy(gates + n * V * kLanes, chunk.gates + (first + n) * row_size + panel * kPanel, V * kLanes);
        in_runs<Most>(columns, [&](auto n_columns, int column) {
          constexpr int N = decltype(n_columns)::value;
          const float* values[N];
          float* sums[N];
          for (int n = 0; n < N; ++n) {
            values[n] = chunk.sources + first * width + column + n;
            sums[n] = to + int64_t(column + n) * V * kLanes;
          }
          accumulate<V, N>(gates, V * kLanes, count, values, width, sums);
        });
      }
    }

    void write(const Gradients& gradients) const {
      const PackedCell<Cell>* const cells[] = {&engine.big_, &engine.small_};
      int first_panel = 0;
      for (int which = 0; which < (engine.sizes_.skims ? 2 : 1); first_panel += cells[which++]->panels) {
        const CellGradients& to = which ? gradients.small : gradients.big;
        const int units = cells[which]->units;
        for (int gate = 0; gate < Cell::gates; ++gate)
          for (int unit = 0; unit < units; ++unit) {
            const float* from = memory.at(int64_t(first_panel + unit / kLanes) * columns * kPanel + unit % kLanes);
            write_row(to, gate * units + unit, from + Cell::input_slot(gate) * kLanes,
                      from + Cell::hidden_slot(gate) * kLanes, kPanel, 1.0f);
          }
      }
      if (!engine.sizes_.skims) return;
      const float* from = memory.at(int64_t(panels) * columns * kPanel);
      write_row(gradients.decision, 0, from, from, kLanes, 1.0f);
      write_row(gradients.decision, 1, from, from, kLanes, -1.0f);
    }

    void write_row(const CellGradients& to, int row, const float* input, const float* hidden, int stride,
                   float sign) const {
      const int inputs = engine.sizes_.input, hiddens = engine.sizes_.hidden;
      for (int k = 0; k < inputs; ++k) to.input[int64_t(row) * inputs + k] = sign * input[int64_t(k) * stride];
      for (int k = 0; k < hiddens; ++k)
        to.hidden[int64_t(row) * hiddens + k] = sign * hidden[int64_t(inputs + k) * stride];
      to.input_bias[row] = sign * input[int64_t(columns - 1) * stride];
      to.hidden_bias[row] = sign * hidden[int64_t(columns - 1) * stride];
    }

    const Engine& engine;
    const int panels, columns, width;
    Buffer memory;
  };

  int rows() const { return decision_offset_ + (sizes_.skims ? 1 : 0); }

  void backward_tracks(const Batch& batch, const Results& results, const Tape& tape, const Gradients& gradients,
                       const Transposed& weights, const Chunk& chunk, int width, Track* tracks, int count) const {
    int active = 0;
    while (active < count && tracks[active].length > chunk.end) ++active;
    for (int64_t t = chunk.end - 1; t >= chunk.first; --t) {
      while (active < count && tracks[active].length > t) {
        Track& track = tracks[active++];
        const int64_t row = track.sequence * sizes_.hidden;
        if (gradients.last_hidden) copy(track.d_hidden, gradients.last_hidden + row, sizes_.hidden);
        if (gradients.last_cell) copy(track.d_cell, gradients.last_cell + row, sizes_.hidden);
      }
      for (int n = 0; n < active; ++n) {
        Track& track = tracks[n];
        const int64_t slot = chunk.bases[t - chunk.first] + track.rank;
        track.d_gates = chunk.gates + slot * row_size();
        backward_token(batch, results, tape, gradients, t, track);
        float* source = chunk.sources + slot * width;
        copy(source, batch.inputs + chunk.tokens[slot] * sizes_.input, sizes_.input);
        copy(source + sizes_.input, track.hidden, sizes_.hidden);
        source[sizes_.input + sizes_.hidden] = 1.0f;
      }
      weights.multiply(active, [=](int n) { return tracks[n].d_gates; }, [=](int n) { return tracks[n].d_hidden; });
    }
  }

  // The gradient of one token's gates, and of the state before it by every path but the hidden weights.
  void backward_token(const Batch& batch, const Results& results, const Tape& tape, const Gradients& gradients,
                      int64_t t, Track& track) const {
    const int64_t token = batch.token(t, track.sequence);
    const int64_t before = token - batch.next();
    const float* gates_row = tape.gates + token * row_size();
    copy(track.hidden, t ? results.outputs + before * sizes_.hidden : batch.hidden + track.sequence * sizes_.hidden,
         sizes_.hidden);
    if (Cell::has_cell) {
      if (t) copy(track.cell, tape.cells + before * padded_, padded_);
      else copy(track.cell, batch.cell + track.sequence * sizes_.hidden, sizes_.hidden);
    }
    const float share = sizes_.skims ? gates_row[decision_offset_] : 1.0f;
    const float* d_output = gradients.outputs ? gradients.outputs + token * sizes_.hidden : nullptr;
    Vec d_share = {};
    for (int panel = 0; panel < big_.panels; ++panel) {
      const int first = panel * kLanes;
      Vec hidden = load(track.hidden + first), cell = load(track.cell + first);
      Vec d_new_hidden = load(track.d_hidden + first), d_new_cell = load(track.d_cell + first);
      if (d_output) d_new_hidden += load_some(d_output + first, sizes_.hidden - first);
      Vec gates[4], d_gates[4], read_hidden, read_cell = cell, d_hidden, d_cell;
      load_slots(gates_row + panel * kPanel, gates);
      Cell::next(gates, hidden, cell, read_hidden, read_cell);
      Cell::backward(gates, hidden, cell, share * d_new_hidden, share * d_new_cell, d_gates, d_hidden, d_cell);
      store_slots(track.d_gates + panel * kPanel, d_gates);
      if (sizes_.skims) {
        // Units of the small cell change by it; the others, and their gradient, pass by it.
        const Vec d_skim_hidden = (1.0f - share) * d_new_hidden, d_skim_cell = (1.0f - share) * d_new_cell;
        const int units = small_.units - first;
        Vec skim_hidden = hidden, skim_cell = cell, d_old_hidden = d_skim_hidden, d_old_cell = d_skim_cell;
        if (units > 0) {
          Vec small_gates[4], d_small[4], new_hidden, new_cell = cell, d_small_hidden, d_small_cell;
          load_slots(gates_row + small_offset_ + panel * kPanel, small_gates);
          Cell::next(small_gates, hidden, cell, new_hidden, new_cell);
          Cell::backward(small_gates, hidden, cell, d_skim_hidden, d_skim_cell, d_small, d_small_hidden, d_small_cell);
          store_slots(track.d_gates + small_offset_ + panel * kPanel, d_small);
          skim_hidden = select_first(units, new_hidden, hidden);
          skim_cell = select_first(units, new_cell, cell);
          d_old_hidden = select_first(units, d_small_hidden, d_skim_hidden);
          d_old_cell = select_first(units, d_small_cell, d_skim_cell);
        }
        d_hidden += d_old_hidden;
        d_cell += d_old_cell;
        d_share += d_new_hidden * (read_hidden - skim_hidden) + d_new_cell * (read_cell - skim_cell);
      }
      store(track.d_hidden + first, d_hidden);
      store(track.d_cell + first, d_cell);
    }
    clear(track.d_gates + decision_offset_, kLanes);
    if (!sizes_.skims) return;
    float d_margin = 0;
    if (gradients.log_p) {
      const float* log_p = results.log_p + 2 * token;
      d_margin = gradients.log_p[2 * token] * expf(log_p[1]) - gradients.log_p[2 * token + 1] * expf(log_p[0]);
    }
    if (tape.noise) d_margin += sum(d_share) * share * (1.0f - share) / tape.temperature;
    track.d_gates[decision_offset_] = d_margin;
  }

  const Sizes sizes_;
  const PackedCell<Cell> big_, small_;
  const DenseCell<Cell> dense_;
  const PackedDecision decision_;
  const int padded_, small_offset_, decision_offset_;
};

inline Layer* make_layer(bool gru, const Sizes& sizes, const CellWeights& big, const CellWeights& small,
                         const DecisionWeights& decision) {
  if (gru) return new Engine<Gru>(sizes, big, small, decision);
  return new Engine<Lstm>(sizes, big, small, decision);
}

}  // namespace
}  // namespace skimrnn
