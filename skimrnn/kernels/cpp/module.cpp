// The Python module: picks an instruction set and hands arrays over by address. The caller (cpu.py) checks them.

#if defined(__linux__)
#include <dlfcn.h>
#endif

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "layer.hpp"

namespace nb = nanobind;

namespace skimrnn {

void* allocate(int64_t bytes) {
  const size_t size = (size_t(bytes) / 64 + 1) * 64;
  void* memory = std::aligned_alloc(64, size);
  if (!memory) throw std::bad_alloc();
  return std::memset(memory, 0, size);
}

void release(void* memory) { std::free(memory); }

// The workers of torch's GNU OpenMP pool, where there is one, go on spinning for milliseconds after each of torch's own
// operations: threads beside them would share their cores. So the work goes to that pool, found by its symbol.
using RunOnPool = void (*)(void (*)(void*), void*, unsigned threads, unsigned flags);

RunOnPool torch_pool() {
#if defined(__linux__)
  static const RunOnPool pool = reinterpret_cast<RunOnPool>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return pool;
#else
  return nullptr;
#endif
}

void run_on_threads(int threads, int shares, void (*work)(int share, const void* context), const void* context) {
  struct Shares {
    void (*work)(int, const void*);
    const void* context;
    int count;
    std::atomic<int> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;
  } all{work, context, shares};
  // An exception may not leave a thread: the first one waits for all of them.
  auto take = [](void* memory) {
    Shares& all = *static_cast<Shares*>(memory);
    try {
      for (int share; !all.failed && (share = all.next++) < all.count;) all.work(share, all.context);
    } catch (...) {
      if (!all.failed.exchange(true)) all.error = std::current_exception();
    }
  };
  threads = std::min(threads, shares);
  if (threads <= 1) {
    take(&all);
  } else if (const RunOnPool pool = torch_pool()) {
    pool(take, &all, unsigned(threads), 0);
  } else {
    std::vector<std::thread> others;
    try {
      for (int thread = 1; thread < threads; ++thread) others.emplace_back(take, &all);
    } catch (...) {  // Those that there are take all shares.
    }
    take(&all);
    for (std::thread& other : others) other.join();
  }
  if (all.error) std::rethrow_exception(all.error);
}

void sort_by_length(const int64_t* lengths, int64_t sequences, int64_t* order) {
  std::iota(order, order + sequences, int64_t(0));
  std::stable_sort(order, order + sequences, [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
}

namespace {

struct InstructionSet {
  const char* name;
  bool supported;
  MakeLayer make;
  Peaks (*peaks)();
};

#if defined(SKIMRNN_X86)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

// Best first.
std::vector<InstructionSet> instruction_sets() {
  return {
#if defined(SKIMRNN_X86)
      {"avx512", has_avx512(), make_layer_avx512, peaks_avx512},
      {"avx2", has_avx2(), make_layer_avx2, peaks_avx2},
#endif
      {"plain", true, make_layer_plain, peaks_plain},
  };
}

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

using Address = uintptr_t;  // of a contiguous array; 0 is none

// Four arrays from the list, starting with the given one.
template <class Weights>
Weights four(const std::vector<Address>& addresses, size_t first) {
  return {pointer<float>(addresses.at(first)), pointer<float>(addresses.at(first + 1)),
          pointer<float>(addresses.at(first + 2)), pointer<float>(addresses.at(first + 3))};
}

InstructionSet find(const std::string& isa) {
  for (const InstructionSet& set : instruction_sets())
    if (set.name == isa && set.supported) return set;
  throw nb::value_error(("instruction set not built, or not supported by this CPU: " + isa).c_str());
}

std::unique_ptr<Layer> make(const std::string& isa, bool gru, int input, int hidden, int small, bool skims,
                            const std::vector<Address>& weights) {
  const InstructionSet set = find(isa);
  const auto big = four<CellWeights>(weights, 0);
  if (!skims) return std::unique_ptr<Layer>(set.make(gru, {input, hidden, 0, false}, big, {}, {}));
  return std::unique_ptr<Layer>(set.make(gru, {input, hidden, small, true}, big, four<CellWeights>(weights, 4),
                                         four<DecisionWeights>(weights, 8)));
}

// Multiply and add in registers; gives the number of float operations. The sum is kept from being optimised away.
double multiply_add(const std::string& isa, int64_t rounds) {
  const Peaks peaks = find(isa).peaks();
  volatile float kept = peaks.multiply_add(rounds, 0.5f);
  (void)kept;
  return peaks.flops_a_round * double(rounds);
}

void read_array(const std::string& isa, Address from, int64_t count, int64_t rounds) {
  volatile float kept = find(isa).peaks().read(pointer<float>(from), count, rounds);
  (void)kept;
}

// A number that changes when arrays are written as a whole: a mix of 16 numbers spread over each.
uint64_t fingerprint(const std::vector<Address>& arrays, const std::vector<int64_t>& sizes) {
  uint64_t mixed = 0;
  for (size_t i = 0; i < arrays.size(); ++i)
    for (int64_t sample = 0; sample < 16 && sizes[i]; ++sample) {
      uint32_t bits;
      std::memcpy(&bits, pointer<float>(arrays[i]) + sample * (sizes[i] - 1) / 15, sizeof bits);
      mixed = (mixed ^ bits) * 0x9E3779B97F4A7C15u;
      mixed ^= mixed >> 29;
    }
  return mixed;
}

Batch make_batch(int64_t steps, int64_t sequences, Address inputs, Address table, int64_t table_rows, Address words,
                 Address lengths, Address hidden, Address cell, float threshold, bool reverse, int threads) {
  for (int64_t n = 0; n < sequences; ++n) {
    const int64_t length = pointer<int64_t>(lengths)[n];
    if (length <= 0)  // Torch's words.
      throw std::runtime_error(
          "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0");
    if (length > steps) throw std::runtime_error("a length is greater than the number of steps");
  }
  for (int64_t n = 0; words && n < steps * sequences; ++n)
    if (const int64_t word = pointer<int64_t>(words)[n]; word < 0 || word >= table_rows)
      throw nb::index_error("a word is not in the table");
  return {steps,
          sequences,
          pointer<float>(inputs),
          pointer<float>(table),
          pointer<int64_t>(words),
          pointer<int64_t>(lengths),
          pointer<float>(hidden),
          pointer<float>(cell),
          threshold,
          reverse,
          threads};
}

Results make_results(Address outputs, Address last_hidden, Address last_cell, Address log_p, Address read) {
  return {pointer<float>(outputs), pointer<float>(last_hidden), pointer<float>(last_cell), pointer<float>(log_p),
          pointer<bool>(read)};
}

Tape make_tape(Address noise, float temperature, Address gates, Address cells) {
  return {pointer<float>(noise), temperature, pointer<float>(gates), pointer<float>(cells)};
}

// `weights`: the gradients of four tensors of a plain layer, or of twelve.
Gradients make_gradients(Address outputs, Address last_hidden, Address last_cell, Address log_p, Address inputs,
                         Address hidden, Address cell, const std::vector<Address>& weights) {
  const bool skims = weights.size() > 4;
  return {pointer<float>(outputs),
          pointer<float>(last_hidden),
          pointer<float>(last_cell),
          pointer<float>(log_p),
          pointer<float>(inputs),
          pointer<float>(hidden),
          pointer<float>(cell),
          four<CellGradients>(weights, 0),
          skims ? four<CellGradients>(weights, 4) : CellGradients{},
          skims ? four<CellGradients>(weights, 8) : CellGradients{}};
}

}  // namespace
}  // namespace skimrnn

NB_MODULE(_cpu, m) {
  using namespace skimrnn;
  m.attr("sources") = SKIMRNN_SOURCES;
  nb::dict lanes;  // Floats in a vector of each supported instruction set: of others, no code may run.
  for (const InstructionSet& set : instruction_sets())
    if (set.supported) lanes[set.name] = set.peaks().lanes;
  m.attr("lanes") = lanes;
  nb::class_<Batch>(m, "Batch");
  nb::class_<Results>(m, "Results");
  nb::class_<Tape>(m, "Tape");
  nb::class_<Gradients>(m, "Gradients");
  m.def("fingerprint", &fingerprint);
  m.def("batch", &make_batch);
  m.def("results", &make_results);
  m.def("tape", &make_tape);
  m.def("gradients", &make_gradients);
  m.def("layer", &make);
  m.def("multiply_add", &multiply_add);
  m.def("read_array", &read_array);
  nb::class_<Layer>(m, "Layer")
      .def_prop_ro("folded_size", &Layer::folded_size)
      .def(
          "fold",
          [](const Layer& layer, Address inputs, int64_t count, Address rows) {
            layer.fold(pointer<float>(inputs), count, pointer<float>(rows));
          },
          nb::call_guard<nb::gil_scoped_release>())
      .def("infer", &Layer::infer, nb::call_guard<nb::gil_scoped_release>())
      .def("forward", &Layer::forward, nb::call_guard<nb::gil_scoped_release>())
      .def("backward", &Layer::backward, nb::call_guard<nb::gil_scoped_release>());
}
