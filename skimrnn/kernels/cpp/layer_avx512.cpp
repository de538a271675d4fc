#include "engine.hpp"

namespace skimrnn {

Layer* make_layer_avx512(bool gru, const Sizes& sizes, const CellWeights& big, const CellWeights& small,
                       const DecisionWeights& decision) {
  return make_layer(gru, sizes, big, small, decision);
}

}  // namespace skimrnn
