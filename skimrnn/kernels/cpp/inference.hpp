// Inference: each token takes the cell that its decision chose, and what can be known ahead is made ahead.
#pragma once

#include "core.hpp"

namespace skimrnn {
namespace {

constexpr int kLoneBlock = 64;      // Tokens that the cheap projections run ahead, a power of two: of a lone sequence,
constexpr int kSharedBlock = 16;    // of each of several.
constexpr int kMostCertain = 32;    // Tokens of a lone sequence that the big cell's projection takes at once: of a
constexpr int kMostSpeculated = 8;  // plain layer, or where each may turn out to be skimmed.

template <class Cell>
class Inference : public Core<Cell> {
 public:
  using Core<Cell>::Core;

  void infer(const Batch& batch, const Results& results) const override {
    Team team(*this, batch, 3);
    share_out(team.threads, team.threads,
              [&](int thread) { infer_tracks(batch, results, team.tracks(thread), team.count(thread)); });
  }

 protected:
  using Core<Cell>::big_;
  using Core<Cell>::clear;
  using Core<Cell>::copy;
  using Core<Cell>::decision_;
  using Core<Cell>::dense_;
  using Core<Cell>::larger;
  using Core<Cell>::share_out;
  using Core<Cell>::sizes_;
  using Core<Cell>::smaller;
  using Core<Cell>::swap_hidden;
  using Core<Cell>::write_step;

 private:
  using LogProbabilities = typename Core<Cell>::LogProbabilities;
  using Team = typename Core<Cell>::Team;
  using Core<Cell>::cheap_size;
  using Core<Cell>::folded_size;

  // The big cell's projections that a lone sequence makes ahead. They share a pass over its weights, which is bound by
  // fetching them: those of the next tokens that would be read by the state at hand. Their number doubles where all
  // were read in the end, and is halved where few were.
  class Lookahead {
   public:
    Lookahead(const Inference& layer, const Batch& batch, const Track& track, bool used)
        : layer_(layer),
          batch_(batch),
          track_(track),
          most_(layer.sizes_.skims ? 2 : kMostCertain),
          rows_(used ? (layer.sizes_.skims ? kMostSpeculated : kMostCertain) * int64_t(layer.big_.row_size()) : 0) {}

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
      const bool skims = layer_.sizes_.skims;
      if (skims && used_ == made_) most_ = smaller(2 * most_, kMostSpeculated);
      if (skims && 2 * used_ < made_) most_ = larger(2, most_ / 2);
      forget();
      used_ = made_ = 0;
      const float* inputs[kMostCertain];
      const int64_t t = track_.step;
      end_ = smaller(t - t % kLoneBlock + kLoneBlock, track_.length);
      for (int64_t next = t; next < end_ && made_ < most_; ++next) {
        if (skims && next > t) {
          const float projected = layer_.ahead(track_, next, kLoneBlock)[layer_.dense_.width];
          if (!reads(projected + track_.state_margin, batch_.threshold)) continue;
        }
        places_[next % kLoneBlock] = int8_t(made_);
        inputs[made_++] = layer_.input(batch_, track_, next);
      }
      layer_.big_.project(made_, [&](int n) { return inputs[n]; }, [&](int n) { return row(n); });
    }

    void forget() { memset(places_, -1, sizeof places_); }
    float* row(int n) const { return rows_.at(int64_t(n) * layer_.big_.row_size()); }

    const Inference& layer_;
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
  float* ahead(const Track& track, int64_t t, int block) const {
    return track.ahead + (t & (block - 1)) * cheap_size();
  }

  // The table lies far away: ask for what the step after the next needs at any rate, and for what the big cell needs if
  // the state at hand would have the next token read.
  void ask_ahead(const Batch& batch, const Track& track) const {
    auto row = [&](int64_t t) { return batch.table + batch.words[batch.token(t, track.sequence)] * folded_size(); };
    const int64_t t = track.step;
    if (t + 2 < track.length) ask_for<2>(row(t + 2) + big_.row_size(), cheap_size());
    if (t + 1 >= track.length) return;
    const float* next = row(t + 1);
    if (sizes_.skims && !reads(next[big_.row_size() + dense_.width] + track.state_margin, batch.threshold)) return;
    ask_for<2>(next, big_.row_size());
  }

  // What inference of a thread's tracks shares.
  struct Run {
    const Batch& batch;
    const Results& results;
    const int block;  // Tokens that cheap projections run ahead.
    int64_t end = 0;  // of the block at hand
    LogProbabilities log_p;
  };

  // Of several sequences no longer than it must be to hold the longest one.
  static int block_for(int count, int64_t longest) {
    if (count == 1) return kLoneBlock;
    int block = kSharedBlock;
    while (block / 2 >= longest) block /= 2;
    return block;
  }

  // Block by block, whose tokens lie near each other for all sequences. Within a block each sequence goes on by itself,
  // skimming, to its next token that is read; all that have come to one share the pass over the big cell's weights.
  void infer_tracks(const Batch& batch, const Results& results, Track* tracks, int count) const {
    const bool alone = count == 1 && !batch.table;
    Run run{batch, results, block_for(count, tracks[0].length), 0, {}};
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

  // The decision's projections of a block of tokens of each track, and the small cell's of those that the state at hand
  // would have skimmed. The next track's inputs come while one's are projected.
  void project_ahead(const Run& run, Track* tracks, int count, int64_t begin) const {
    for (int n = 0; n < count; ++n) {
      Track& track = tracks[n];
      for (int64_t t = begin; n + 1 < count && t < smaller(run.end, tracks[n + 1].length); ++t)
        ask_for<2>(input(run.batch, tracks[n + 1], t), sizes_.input);
      for (int64_t t = begin; t < smaller(run.end, track.length); ++t)
        ahead(track, t, run.block)[dense_.width] = decision_.project(input(run.batch, track, t));
      track.have_small = 0;
      project_small(run, track, begin, false);
    }
  }

  // The small cell's projections, as far as they are missing, of the track's tokens from `t` to the end of the block
  // that the state at hand would have skimmed, and of `t` where it is `needed`.
  void project_small(const Run& run, Track& track, int64_t t, bool needed) const {
    const float* inputs[kLoneBlock];
    float* rows[kLoneBlock];
    int count = 0;
    for (const int64_t end = smaller(run.end, track.length); t < end; ++t, needed = false) {
      float* const row = ahead(track, t, run.block);
      const bool read = reads(row[dense_.width] + track.state_margin, run.batch.threshold);
      if ((track.have_small & bit(run, t)) || (read && !needed)) continue;
      track.have_small |= bit(run, t);
      inputs[count] = input(run.batch, track, t);
      rows[count++] = row;
    }
    dense_.project(count, [&](int n) { return inputs[n]; }, [&](int n) { return rows[n]; });
  }

  static uint64_t bit(const Run& run, int64_t t) { return uint64_t(1) << (t & (run.block - 1)); }

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
      read = reads(margin, batch.threshold);
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
      if (!(track.have_small & bit(run, track.step))) project_small(run, track, track.step, true);
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
};

}  // namespace
}  // namespace skimrnn
