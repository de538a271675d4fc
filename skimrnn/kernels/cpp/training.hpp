// Training: the relaxed model over whole sequences, forward and backward.
#pragma once

#include "inference.hpp"

namespace skimrnn {
namespace {

constexpr int kChunk = 256;  // Tokens whose gradients of the gates are kept before they go into the weights'.

template <class Cell>
class Training final : public Inference<Cell> {
 public:
  Training(const Sizes& sizes, const CellWeights& big, const CellWeights& small, const DecisionWeights& decision)
      : Inference<Cell>(sizes, big, small, decision),
        small_(small, sizes.skims ? sizes.small : 0, sizes.input, sizes.hidden),
        small_offset_(big_.row_size()),
        decision_offset_(big_.row_size() + small_.row_size()) {}

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
  using LogProbabilities = typename Core<Cell>::LogProbabilities;
  using Team = typename Core<Cell>::Team;
  using Core<Cell>::big_;
  using Core<Cell>::clear;
  using Core<Cell>::copy;
  using Core<Cell>::decision_;
  using Core<Cell>::larger;
  using Core<Cell>::padded_;
  using Core<Cell>::share_out;
  using Core<Cell>::sizes_;
  using Core<Cell>::smaller;
  using Core<Cell>::swap_hidden;
  using Core<Cell>::write_step;

  // Floats in a row of training's gates: panels of the big cell, of the small cell, one vector for the decision.
  int row_size() const { return decision_offset_ + kLanes; }

  // lerp in the way that is exact at both ends; a hard decision's other end may be infinite or NaN.
  static Vec mix(Vec skim, Vec read, float share, bool hard) {
    if (hard) return share ? read : skim;
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
        results.read[token] = reads(margin, batch.threshold);
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
      const bool skims = sizes_.skims, hard = !tape.noise;
      walk(big_, &Track::projected_big, active_tracks, active, t & 1, [=](int panel, Track& track, Vec (&gates)[4]) {
        Vec hidden = load(track.hidden + panel * kLanes), cell = load(track.cell + panel * kLanes);
        Cell::activate(gates);
        store_slots(track.gates + panel * kPanel, gates);
        Cell::next(gates, hidden, cell, hidden, cell);
        if (skims) {
          hidden = mix(load(track.skim_hidden + panel * kLanes), hidden, track.share, hard);
          cell = mix(load(track.skim_cell + panel * kLanes), cell, track.share, hard);
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
    Transposed(const Training& layer, int columns, const Buffer PackedCell<Cell>::* weights, const Buffer& decision,
               const Slot& slot)
        : rows(layer.rows()),
          vectors((columns + kLanes - 1) / kLanes),
          panels((vectors + 3) / 4),
          padded(vectors * kLanes),
          memory(int64_t(rows) * padded) {
      const PackedCell<Cell>* const cells[] = {&layer.big_, &layer.small_};
      for (int panel = 0; panel < panels; ++panel) {
        const int first = start(panel), width = start(panel + 1) - first, end = int(smaller(first + width, columns));
        float* const panel_rows = memory.at(int64_t(first) * rows);
        int first_row = 0;
        for (const PackedCell<Cell>* cell : cells) {
          for (int unit = 0; unit < cell->units; ++unit)
            for (int gate = 0; gate < Cell::gates; ++gate) {
              const int row = first_row + unit / kLanes * kPanel + slot(gate) * kLanes + unit % kLanes;
              for (int column = first; column < end; ++column)
                panel_rows[row * width + column - first] =
                    *cell->weight(cell->*weights, columns, unit, gate, column);
            }
          first_row += cell->row_size();
        }
        if (layer.sizes_.skims) copy(panel_rows + first_row * width, decision.at(first), end - first);
      }
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
    int start(int panel) const { return int(int64_t(panel) * vectors / (panels ? panels : 1)) * kLanes; }

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

  // The gradient of all weights, in panels. The columns are x, h_{t-1} and 1, whose weights are the biases.
  struct WeightSums {
    explicit WeightSums(const Training& layer)
        : layer(layer),
          panels(layer.big_.panels + layer.small_.panels),
          columns(layer.sizes_.input + layer.sizes_.hidden + 1),
          width((columns + 15) / 32 * 32 + 16),  // An odd number of cache lines: rows meet in few sets.
          memory(int64_t(panels + 1) * columns * kPanel) {}

    // One panel's share of a chunk; the last one is the decision's.
    void add(const Chunk& chunk, int panel) const {
      if (panel == panels && !layer.sizes_.skims) return;
      call_rest<4>(vectors(panel), panel, [&](auto v, int own) { add<decltype(v)::value>(chunk, own); });
    }

    // A panel's slots lie close together here, each as wide as it has units.
    int slots(int panel) const { return panel < panels ? 4 : 1; }
    int units(int panel) const {
      const int big = layer.big_.panels;
      const int left = panel < big ? layer.big_.units - panel * kLanes
                                   : panel < panels ? layer.small_.units - (panel - big) * kLanes : 1;
      return left < kLanes ? left : kLanes;
    }
    int vectors(int panel) const { return (slots(panel) * units(panel) + kLanes - 1) / kLanes; }

    template <int V>
    void add(const Chunk& chunk, int panel) const {
      const int64_t row_size = layer.row_size();
      const int n_slots = slots(panel), n_units = units(panel);
      float* to = memory.at(int64_t(panel) * columns * kPanel);
      alignas(64) float gates[kRows * V * kLanes] = {};
      for (int64_t first = 0; first < chunk.count; first += kRows) {
        const int count = int(smaller(kRows, chunk.count - first));
        for (int n = 0; n < count; ++n)
          for (int slot = 0; slot < n_slots; ++slot)
            copy(gates + n * V * kLanes + slot * n_units,
                 chunk.gates + (first + n) * row_size + panel * kPanel + slot * kLanes, n_units);
        in_runs<rows_in_registers(V)>(columns, [&](auto n_columns, int column) {
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
      const PackedCell<Cell>* const cells[] = {&layer.big_, &layer.small_};
      int first_panel = 0;
      for (int which = 0; which < (layer.sizes_.skims ? 2 : 1); first_panel += cells[which++]->panels) {
        const CellGradients& to = which ? gradients.small : gradients.big;
        const int units = cells[which]->units;
        for (int gate = 0; gate < Cell::gates; ++gate)
          for (int unit = 0; unit < units; ++unit) {
            const int panel = first_panel + unit / kLanes, slot = this->units(panel);
            const float* from = memory.at(int64_t(panel) * columns * kPanel + unit % kLanes);
            write_row(to, gate * units + unit, from + Cell::input_slot(gate) * slot,
                      from + Cell::hidden_slot(gate) * slot, vectors(panel) * kLanes, 1.0f);
          }
      }
      if (!layer.sizes_.skims) return;
      const float* from = memory.at(int64_t(panels) * columns * kPanel);
      write_row(gradients.decision, 0, from, from, kLanes, 1.0f);
      write_row(gradients.decision, 1, from, from, kLanes, -1.0f);
    }

    void write_row(const CellGradients& to, int row, const float* input, const float* hidden, int stride,
                   float sign) const {
      const int inputs = layer.sizes_.input, hiddens = layer.sizes_.hidden;
      for (int k = 0; k < inputs; ++k) to.input[int64_t(row) * inputs + k] = sign * input[int64_t(k) * stride];
      for (int k = 0; k < hiddens; ++k)
        to.hidden[int64_t(row) * hiddens + k] = sign * hidden[int64_t(inputs + k) * stride];
      to.input_bias[row] = sign * input[int64_t(columns - 1) * stride];
      to.hidden_bias[row] = sign * hidden[int64_t(columns - 1) * stride];
    }

    const Training& layer;
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

  const PackedCell<Cell> small_;
  const int small_offset_, decision_offset_;
};

}  // namespace
}  // namespace skimrnn
