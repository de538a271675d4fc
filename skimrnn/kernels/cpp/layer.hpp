// What every instruction set's build of a layer offers: plain data in, plain data out. T steps, B sequences, E inputs,
// D hidden units, S small units; all arrays are float32, row-major and contiguous unless said otherwise.
#pragma once

#include <cstdint>

namespace skimrnn {

struct CellWeights {
  const float* input;        // (G n, E): G = 4 gates for an LSTM, 3 for a GRU, in torch's order
  const float* hidden;       // (G n, D)
  const float* input_bias;   // (G n)
  const float* hidden_bias;  // (G n)
};

struct DecisionWeights {
  const float* input;        // (2, E): read first
  const float* hidden;       // (2, D)
  const float* input_bias;   // (2)
  const float* hidden_bias;  // (2)
};

struct Sizes {
  int input;
  int hidden;
  int small;
  bool skims;  // false: a plain LSTM or GRU, which reads every token
};

// Where the tokens come from, and what a run starts from.
struct Batch {
  int64_t steps;
  int64_t sequences;
  const float* inputs;     // (T, B, E), or null where `table` is given
  const float* table;      // (V, folded_size): rows that `fold` made
  const int64_t* words;    // (T, B): rows of the table
  const int64_t* lengths;  // (B), each 1 to T
  const float* hidden;     // (B, D): h_0
  const float* cell;       // (B, D): c_0, or null for a GRU
  float threshold;         // on the margin, the logit of "read" less the logit of "skim"
  bool reverse;            // Each sequence is read from its last token to its first.
  int threads;

  // Where step `t` of a sequence finds its token, in B-sized rows of sequences.
  int64_t token(int64_t t, int64_t sequence) const {
    return (reverse ? lengths[sequence] - 1 - t : t) * sequences + sequence;
  }
  // From the token of one step to that of the next.
  int64_t next() const { return reverse ? -sequences : sequences; }
};

// What inference writes. Positions past a sequence's length become zero.
struct Results {
  float* outputs;      // (T, B, D)
  float* last_hidden;  // (B, D)
  float* last_cell;    // (B, D), or null for a GRU
  float* log_p;        // (T, B, 2): log-probabilities, read first; null for a plain layer
  bool* read;          // (T, B); null for a plain layer
};

// What training writes besides, for the backward pass.
struct Tape {
  const float* noise;  // (T, B): Gumbel noise of "read" less that of "skim", or null for hard decisions
  float temperature;
  float* gates;  // (T, B, (panels of the big cell, of the small cell) x 4 x lanes + lanes): last the share of "read"
  float* cells;  // (T, B, padded D): c_t, or null for a GRU
};

// The gradient of a cell's weights, or of the decision's, in their shapes: written.
struct CellGradients {
  float* input;
  float* hidden;
  float* input_bias;
  float* hidden_bias;
};

struct Gradients {
  const float* outputs;      // (T, B, D): gradient of each, or null for none
  const float* last_hidden;  // (B, D), or null
  const float* last_cell;    // (B, D), or null
  const float* log_p;        // (T, B, 2), or null
  float* inputs;             // (T, B, E): written, or null where it is not wanted
  float* hidden;             // (B, D): written
  float* cell;               // (B, D): written, or null for a GRU
  CellGradients big;
  CellGradients small;     // Nulls for a plain layer, as in `decision`.
  CellGradients decision;
};

class Layer {
 public:
  virtual ~Layer() = default;
  // Floats in a row of `fold`.
  virtual int folded_size() const = 0;
  // Project `count` inputs (count, E) with the input weights of both cells and of the decision: (count, folded_size).
  virtual void fold(const float* inputs, int64_t count, float* rows) const = 0;
  virtual void infer(const Batch& batch, const Results& results) const = 0;
  virtual void forward(const Batch& batch, const Results& results, const Tape& tape) const = 0;
  virtual void backward(const Batch& batch, const Results& results, const Tape& tape,
                        const Gradients& gradients) const = 0;
};

using MakeLayer = Layer* (*)(bool gru, const Sizes&, const CellWeights& big, const CellWeights& small,
                             const DecisionWeights&);

Layer* make_layer_plain(bool, const Sizes&, const CellWeights&, const CellWeights&, const DecisionWeights&);
Layer* make_layer_avx2(bool, const Sizes&, const CellWeights&, const CellWeights&, const DecisionWeights&);
Layer* make_layer_avx512(bool, const Sizes&, const CellWeights&, const CellWeights&, const DecisionWeights&);

// What the instruction set reaches at best: see peaks.hpp.
struct Peaks {
  int lanes;             // floats in a vector
  double flops_a_round;  // of `multiply_add`
  float (*multiply_add)(int64_t rounds, float factor);
  float (*read)(const float* from, int64_t count, int64_t rounds);
};

Peaks peaks_plain();
Peaks peaks_avx2();
Peaks peaks_avx512();

// Compiled once, for the plain instruction set, because it uses the standard library's templates.
void* allocate(int64_t bytes);  // 64-byte aligned, zeroed
void release(void* memory);
// Call `work` for each of `shares`, on so many threads.
void run_on_threads(int threads, int shares, void (*work)(int share, const void* context), const void* context);
// Sequence numbers by falling length (ties by number).
void sort_by_length(const int64_t* lengths, int64_t sequences, int64_t* order);

}  // namespace skimrnn
