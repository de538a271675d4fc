// The recurrent layers, for the instruction set that the including file is compiled for.
#pragma once

#include "training.hpp"

namespace skimrnn {
namespace {

inline Layer* make_layer(bool gru, const Sizes& sizes, const CellWeights& big, const CellWeights& small,
                         const DecisionWeights& decision) {
  if (gru) return new Training<Gru>(sizes, big, small, decision);
  return new Training<Lstm>(sizes, big, small, decision);
}

}  // namespace
}  // namespace skimrnn
