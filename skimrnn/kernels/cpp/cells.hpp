// The two cells. Each gate has a slot among four: input, forget, candidate, output for an LSTM; reset, update, new
// (input side), new (hidden side) for a GRU, whose last two meet only after the reset gate is known.
#pragma once

#include "vector.hpp"

namespace skimrnn {
namespace {

struct Lstm {
  static constexpr int gates = 4;
  static constexpr bool has_cell = true;
  static constexpr int input_slot(int gate) { return gate; }
  static constexpr int hidden_slot(int gate) { return gate; }

  static void activate(Vec (&gate)[4]) {
    gate[0] *= 0.5f;
    gate[1] *= 0.5f;
    gate[3] *= 0.5f;
    tanh(gate);
    gate[0] = sigmoid_from(gate[0]);
    gate[1] = sigmoid_from(gate[1]);
    gate[3] = sigmoid_from(gate[3]);
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

}  // namespace
}  // namespace skimrnn
