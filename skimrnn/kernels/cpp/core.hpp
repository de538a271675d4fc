// The sequences on their way, and the part of a layer that inference and training share.
#pragma once

#include <math.h>
#include <string.h>

#include "layer.hpp"
#include "weights.hpp"

namespace skimrnn {
namespace {

constexpr int kPanelsAtOnce = 3;  // Panels per pass for a lone sequence: sums enough to hide the latency of adding.

// One sequence on its way. State arrays are padded to whole panels of the big cell.
struct Track {
  int64_t rank;  // among all sequences, by falling length
  int64_t sequence;
  int64_t length;
  float* hidden;
  float* next_hidden;
  float* cell;
  const float* input = nullptr;          // x_t
  const float* projected_big = nullptr;  // Its projections where they are known, else null.
  const float* projected_small = nullptr;
  // Inference only: what the hidden units that skimming leaves add to the margin and to the small cell's sums. It lasts
  // from one read token to the next.
  bool lasts = false;
  float lasting_margin = 0;
  float* lasting_sums = nullptr;
  int64_t step = 0;
  float state_margin = -INFINITY;  // What the state adds to the margin: skims before it is known.
  float* ahead = nullptr;          // Cheap projections of a block of tokens.
  uint64_t have_small = ~0ull;     // Those of them, by bits, whose projections for the small cell are there.
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
  auto visit = [&](auto n_panels, int panel, auto n_tracks, int first, const auto& before_finishing) {
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
    before_finishing();
    for (int p = 0; p < P; ++p)
      for (int n = 0; n < N; ++n) finish(panel + p, *tracks[first + n], sums[p][n]);
  };
  if (count == 1) {
    // Every other step backwards: it starts with the weights that the last step left in the cache. The runs at the two
    // ends are the short ones, because that cache holds two panels of a hundred units and not three.
    const int runs = (cell.panels + kPanelsAtOnce - 1) / kPanelsAtOnce, missing = runs * kPanelsAtOnce - cell.panels;
    auto start = [=](int run) {
      return run * kPanelsAtOnce - (run == 0 ? 0 : run < runs ? (missing + 1) / 2 : missing);
    };
    for (int i = 0; i < runs; ++i) {
      const int run = backwards ? runs - 1 - i : i, next = backwards ? run - 1 : run + 1;
      auto ask = [&] {
        if (i + 1 < runs) cell.ask_for_hiddens(start(next), start(next + 1));
      };
      call_rest<kPanelsAtOnce>(start(run + 1) - start(run), start(run),
                               [&](auto n, int panel) { visit(n, panel, Count<1>{}, 0, ask); });
    }
  } else {
    for (int panel = 0; panel < cell.panels; ++panel)
      in_runs<kGroup>(count, [&](auto n, int first) { visit(Count<1>{}, panel, n, first, [] {}); });
  }
}

// A layer's weights and what inference and training share.
template <class Cell>
class Core : public Layer {
 public:
  Core(const Sizes& sizes, const CellWeights& big, const CellWeights& small, const DecisionWeights& decision)
      : sizes_(sizes),
        big_(big, sizes.hidden, sizes.input, sizes.hidden),
        dense_(small, sizes.skims ? sizes.small : 0, sizes.input, sizes.hidden),
        decision_(decision, sizes.skims ? sizes.input : 0, sizes.skims ? sizes.hidden : 0,
                  sizes.skims ? sizes.small : 0),
        padded_(big_.panels * kLanes) {}

  int folded_size() const override { return big_.row_size() + cheap_size(); }

  void fold(const float* inputs, int64_t count, float* rows) const override {
    for (int64_t first = 0; first < count; first += kRows) {
      const int n = int(smaller(kRows, count - first));
      auto values = [&](int n) { return inputs + (first + n) * sizes_.input; };
      auto row = [&](int n) { return rows + (first + n) * folded_size(); };
      big_.project(n, values, row);
      project_cheap(n, values, [&](int n) { return row(n) + big_.row_size(); });
    }
  }

 protected:
  static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
  static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

  // The tracks of all sequences: shared out among the threads by falling length, those of a thread side by side. A
  // thread's tracks that have tokens left are always its first ones.
  struct Team {
    Team(const Core& core, const Batch& batch, int arrays)
        : order_memory(2 * batch.sequences),
          order(reinterpret_cast<int64_t*>(order_memory.at(0))),
          threads(int(smaller(batch.threads, batch.sequences))),
          sequences(batch.sequences),
          track_memory(batch.sequences * int64_t(sizeof(Track)) / 4),
          all(reinterpret_cast<Track*>(track_memory.at(0))),
          states(batch.sequences * arrays * core.padded_) {
      sort_by_length(batch.lengths, sequences, order);
      const int size = core.sizes_.hidden;
      for (int thread = 0; thread < threads; ++thread)
        for (int n = 0; n < count(thread); ++n) {
          Track& track = tracks(thread)[n] = Track{};
          track.rank = thread + int64_t(n) * threads;
          track.sequence = order[track.rank];
          track.length = batch.lengths[track.sequence];
          float** const wanted[] = {&track.hidden,      &track.next_hidden, &track.cell,  &track.skim_hidden,
                                    &track.skim_cell,   &track.d_hidden,    &track.d_cell};
          for (int array = 0; array < arrays; ++array) *wanted[array] = states.take(core.padded_);
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

  // Floats of the projections that each token needs: of the small cell and, in a vector, of the decision.
  int cheap_size() const { return dense_.width + kLanes; }

  template <class Values, class Rows>
  void project_cheap(int count, const Values& values, const Rows& rows) const {
    if (!sizes_.skims) return;
    dense_.project(count, values, rows);
    for (int n = 0; n < count; ++n) rows(n)[dense_.width] = decision_.project(values(n));
  }

  void write_step(const Batch& batch, const Results& results, int64_t t, const Track& track) const {
    const int64_t token = batch.token(t, track.sequence);
    float* const output = results.outputs + token * sizes_.hidden;
    copy(output, track.hidden, sizes_.hidden);
    if (t + 1 < track.length) return ask_for<2>(output + batch.next() * sizes_.hidden, sizes_.hidden);
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

  const Sizes sizes_;
  const PackedCell<Cell> big_;
  const DenseCell<Cell> dense_;
  const PackedDecision decision_;
  const int padded_;
};

}  // namespace
}  // namespace skimrnn
