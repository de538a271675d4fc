#include "engine.hpp"
#include "peaks.hpp"

namespace skimrnn {

Layer* make_layer_avx512(bool gru, const Sizes& sizes, const CellWeights& big, const CellWeights& small,
                       const DecisionWeights& decision) {
  return make_layer(gru, sizes, big, small, decision);
}

Peaks peaks_avx512() { return make_peaks(); }

}  // namespace skimrnn
