"""The compiled kernels against the float64 reference, and against themselves."""

import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from skimrnn.errors import UserError
from skimrnn.kernels import CellWeights, reference
from tests.parity.cases import CELLS, SIZES, assert_gradients_agree, error, make_case, values

cpu = pytest.importorskip("skimrnn.kernels.cpu", reason="installed without the compiled kernels")


@pytest.fixture(params=["avx512", "avx2", "plain"])
def isa(request, monkeypatch):
    if request.param not in cpu.SUPPORTED_ISAS:
        pytest.skip(f"this CPU or build has no {request.param}")
    monkeypatch.setenv("SKIMRNN_ISA", request.param)
    return request.param


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def run_plain(cell, case):
    """What a plain cell with the big cell's weights gives."""
    return cpu.Frozen(cell, case.weights[:4])(case.inputs, case.lengths, case.state)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_inference(cell, sizes, threshold, reverse, isa, seed):
    case = make_case(cell, sizes)
    expected = case.run(reference, threshold=threshold, reverse=reverse)
    actual = case.to(torch.float32).run(cpu, threshold=threshold, reverse=reverse)
    assert torch.equal(actual.read, expected.read)
    for a, e in zip(values(actual), values(expected), strict=True):
        assert error(a, e) < 1e-5


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("relaxed", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_training(cell, sizes, relaxed, reverse, isa, seed):
    """Outputs, last states and every gradient, under a random gradient of all results."""
    case = make_case(cell, sizes)
    options = {"noise": case.noise, "temperature": 0.6} if relaxed else {"threshold": 0.4}
    options["reverse"] = reverse
    double, single = case.to(torch.float64, True), case.to(torch.float32, True)
    expected = double.run(reference, **options)
    if relaxed:
        options["noise"] = single.noise
    actual = single.run(cpu, **options)
    assert torch.equal(actual.read, expected.read)
    upstream = [torch.randn_like(value) for value in values(expected)]
    for a, e in zip(values(actual), values(expected), strict=True):
        assert error(a, e) < 1e-5
    wanted = torch.autograd.grad(values(expected), double.leaves(), upstream)
    given = torch.autograd.grad(values(actual), single.leaves(), [u.float() for u in upstream])
    assert_gradients_agree(given, wanted)


@pytest.mark.parametrize("sizes", SIZES)
def test_training_a_plain_layer(sizes, isa, seed):
    """Every gradient against torch's own layer in float64."""
    case = make_case("lstm", sizes)
    double, single = case.to(torch.float64, True), case.to(torch.float32, True)
    layer = nn.LSTM(sizes[0], sizes[1]).double()
    packed = nn.utils.rnn.pack_padded_sequence(double.inputs, case.lengths, enforce_sorted=False)
    state = tuple(s[None] for s in double.state)
    parameters = dict(zip(dict(layer.named_parameters()), double.weights[:4], strict=True))
    output, last = torch.func.functional_call(layer, parameters, (packed, state))
    expected = [nn.utils.rnn.pad_packed_sequence(output)[0], last[0][0]]
    actual = cpu.lstm(single.inputs, case.lengths, single.state, CellWeights(*single.weights[:4]))
    upstream = [torch.randn_like(value) for value in expected]
    wanted = torch.autograd.grad(expected, [double.inputs, *double.state, *double.weights[:4]], upstream)
    leaves = [single.inputs, *single.state, *single.weights[:4]]
    given = torch.autograd.grad(actual, leaves, [u.float() for u in upstream])
    for index, (a, e) in enumerate(zip([*actual, *given], [*expected, *wanted], strict=True)):
        assert error(a, e) < 1e-5, index


@pytest.mark.parametrize("result", [0, 1, -1])
@pytest.mark.parametrize("cell", CELLS)
def test_gradient_through_one_result_alone(cell, result, seed):
    case = make_case(cell, SIZES[0])
    double, single = case.to(torch.float64, True), case.to(torch.float32, True)
    expected = values(double.run(reference, noise=double.noise))[result]
    actual = values(single.run(cpu, noise=single.noise))[result]
    upstream = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, double.inputs, upstream)[0]
    assert error(torch.autograd.grad(actual, single.inputs, upstream.float())[0], wanted) < 1e-5


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_reading_all_is_torchs_layer(cell, sizes, isa, seed):
    case = make_case(cell, sizes).to(torch.float32)
    layer = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](sizes[0], sizes[1])
    layer.load_state_dict(dict(zip(layer.state_dict(), case.weights[:4], strict=True)))
    packed = nn.utils.rnn.pack_padded_sequence(case.inputs, case.lengths, enforce_sorted=False)
    state = tuple(s[None] for s in case.state)
    with torch.no_grad():
        output, _ = nn.utils.rnn.pad_packed_sequence(layer(packed, state if cell == "lstm" else state[0])[0])
    read = case.run(cpu, threshold=0.0)
    plain = run_plain(cell, case)
    assert error(read.outputs, output) < 1e-6
    assert torch.equal(read.outputs, plain.outputs)
    assert all(map(torch.equal, read.state, plain.state))


@pytest.mark.parametrize("cell", CELLS)
def test_gates_over_their_whole_range(cell, isa, seed):
    """Each sequence is one step, whose gates' sums run from -100 to 100 and lie close to zero, too."""
    case = make_case(cell, (1, 16, 3, 1, 4001)).to(torch.float32)
    case.weights[1] *= 1e-3  # of the hidden units: the input decides
    with torch.no_grad():
        near, far = torch.logspace(-8, 0, 1001), torch.linspace(1, 150, 1000)
        case.inputs[0, :, 0] = torch.cat([-far.flip(0), -near.flip(0)[:-1], near, far])
    outputs, state, *_ = run_plain(cell, case)
    expected = case.to(torch.float64).run(reference, threshold=0.0)
    for a, e in zip([outputs, *state], [expected.outputs, *expected.state], strict=True):
        assert error(a, e) < 1e-6
    assert cell == "gru" or (outputs.abs() <= 1).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_skimming_leaves_the_rest_alone(cell, sizes, training, isa, seed):
    case = make_case(cell, sizes).to(torch.float32, requires_grad=training)
    sequence = case.run(cpu, threshold=1.0)
    assert not sequence.read.any()
    for before, after in zip(case.state, sequence.state, strict=True):
        assert torch.equal(before[:, sizes[2] :], after[:, sizes[2] :])
        if sizes[2]:
            assert not torch.equal(before[:, : sizes[2]], after[:, : sizes[2]])


@pytest.mark.parametrize("threshold", [0.45, 0.8])
@pytest.mark.parametrize("sizes", [SIZES[-1], (4, 9, 2, 900, 3)])  # The second: longer than what is projected ahead.
@pytest.mark.parametrize("cell", CELLS)
def test_whole_is_batch_is_one_by_one_is_step_by_step(cell, sizes, threshold, isa, seed):
    """To the bit: a sequence's sums run in one order, whatever shares a pass with it."""
    case = make_case(cell, sizes).to(torch.float32)
    case.weights[9] *= 5  # Decisions hang on the state: which tokens will be read is often guessed wrong.
    together = case.run(cpu, threshold=threshold)
    inputs, lengths, state = case.inputs, case.lengths, case.state
    for n, length in enumerate(lengths.tolist()):
        case.inputs, case.lengths = inputs[:length, n : n + 1], lengths[n : n + 1]
        case.state = tuple(s[n : n + 1] for s in state)
        alone = case.run(cpu, threshold=threshold)
        assert torch.equal(alone.outputs[:, 0], together.outputs[:length, n])
        assert torch.equal(alone.log_probabilities[:, 0], together.log_probabilities[:length, n])
        case.lengths = torch.ones(1, dtype=torch.int64)
        for t in range(length):
            case.inputs = inputs[t : t + 1, n : n + 1]
            case.state = case.run(cpu, threshold=threshold).state
        assert all(torch.equal(s[0], whole[n]) for s, whole in zip(case.state, together.state, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_folded_is_projected(cell, isa, seed):
    case = make_case(cell, SIZES[-1]).to(torch.float32)
    vectors = torch.randn(11, SIZES[-1][0])
    words = torch.randint(11, case.inputs.shape[:2])
    case.inputs = vectors[words]
    expected = case.run(cpu, threshold=0.45)
    folded = cpu.Frozen(cell, case.weights, vectors)(words, case.lengths, case.state, 0.45)
    assert all(map(torch.equal, values(folded), values(expected)))
    plain = cpu.Frozen(cell, case.weights[:4], vectors)(words, case.lengths, case.state)
    assert torch.equal(plain.outputs, run_plain(cell, case).outputs)
    with pytest.raises(IndexError):
        cpu.Frozen(cell, case.weights, vectors)(words + 11, case.lengths, case.state)


@pytest.mark.parametrize("cell", CELLS)
def test_frozen_keeps_the_weights_it_was_made_of(cell, isa, seed):
    case = make_case(cell, SIZES[-1]).to(torch.float32)
    expected = case.run(cpu, threshold=0.45)
    frozen = cpu.Frozen(cell, case.weights)
    for weight in case.weights:
        weight.zero_()
    again = frozen(case.inputs, case.lengths, case.state, 0.45)
    assert all(map(torch.equal, values(again), values(expected)))


@pytest.mark.parametrize("relaxed", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_instruction_sets_agree(cell, relaxed, monkeypatch, seed):
    if len(cpu.SUPPORTED_ISAS) < 2:
        pytest.skip("only one instruction set here")
    case = make_case(cell, SIZES[-1]).to(torch.float32)
    results = []
    for name in cpu.SUPPORTED_ISAS:
        monkeypatch.setenv("SKIMRNN_ISA", name)
        results.append(values(case.run(cpu, noise=case.noise if relaxed else None)))
    for other in results[1:]:
        assert max(error(a, e) for a, e in zip(other, results[0], strict=True)) < 1e-6


@pytest.mark.parametrize("relaxed", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_threads_do_not_change_a_bit(cell, relaxed, threads, seed):
    case = make_case(cell, SIZES[-1]).to(torch.float32, requires_grad=relaxed)
    results = []
    for count in (1, 2, 3):
        threads(count)
        sequence = case.run(cpu, noise=case.noise if relaxed else None)
        results.append(values(sequence))
        if relaxed:
            results[-1] += torch.autograd.grad(sum(v.sum() for v in values(sequence)), case.leaves())
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("cell", CELLS)
def test_what_is_not_finite_goes_through_as_in_torch(cell, value, isa, seed):
    sizes = (5, 11, 3, 6, 3)
    case = make_case(cell, sizes).to(torch.float32)
    case.inputs[2, 1, 3] = value
    case.lengths[:] = 6
    layer = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](5, 11)
    layer.load_state_dict(dict(zip(layer.state_dict(), case.weights[:4], strict=True)))
    state = tuple(s[None] for s in case.state)
    with torch.no_grad():
        expected, _ = layer(case.inputs, state if cell == "lstm" else state[0])
    assert torch.allclose(run_plain(cell, case).outputs, expected, atol=1e-6, equal_nan=True)
    skimmed, wanted = case.run(cpu), case.run(reference)
    assert torch.allclose(skimmed.outputs, wanted.outputs, atol=1e-5, equal_nan=True)
    assert torch.equal(skimmed.read, wanted.read)


@pytest.mark.parametrize("kernel", [cpu, reference])
@pytest.mark.parametrize("threshold", [0.5, 1.0])
@pytest.mark.parametrize("cell", CELLS)
def test_nan_is_read(cell, threshold, kernel, isa, seed):
    """Where all else is skipped, it reaches every unit, as in a plain layer, and no other sequence."""
    case = make_case(cell, (5, 11, 0, 6, 3)).to(torch.float32)
    case.lengths[:] = 6
    case.weights[10] = torch.tensor([-50.0, 50.0])
    case.inputs[2, 1, 3] = float("nan")
    for requires_grad in (False, True):
        case.inputs.requires_grad_(requires_grad)
        sequence = case.run(kernel, threshold=threshold)
        lost = torch.zeros(6, 3, 11, dtype=torch.bool)
        lost[2:, 1] = True
        assert torch.equal(sequence.outputs.isnan(), lost)
        assert torch.equal(sequence.read, lost[..., 0])


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_the_cell_that_was_not_chosen_leaves_no_trace(cell, read, isa, seed):
    """Not even where it is infinite, and where training computes it."""
    case = make_case(cell, SIZES[0]).to(torch.float32)
    case.weights[5 if read else 1][:] = float("inf")
    expected = case.run(cpu, threshold=0.0 if read else 1.0)
    case.inputs.requires_grad_()
    trained = case.run(cpu, threshold=0.0 if read else 1.0)
    assert trained.outputs.isfinite().all()
    assert error(trained.outputs, expected.outputs) < 1e-5


@pytest.mark.parametrize("cell", CELLS)
def test_without_inputs_the_state_decides(cell, isa, seed):
    case = make_case(cell, (0, 13, 3, 9, 5))
    expected, actual = case.run(reference), case.to(torch.float32).run(cpu)
    assert torch.equal(actual.read, expected.read)
    for a, e in zip(values(actual), values(expected), strict=True):
        assert error(a, e) < 1e-5


def test_more_inputs_than_fit_an_int_times_their_panels(monkeypatch, seed):
    monkeypatch.setenv("SKIMRNN_ISA", "plain")
    case = make_case("lstm", (380_000, 1, 0, 1, 1))
    gradients = []
    for kernel, dtype in ((reference, torch.float64), (cpu, torch.float32)):
        run = case.to(dtype, True)
        outputs = run.run(kernel, noise=run.noise).outputs
        gradients.append(torch.autograd.grad(outputs.sum(), run.inputs)[0])
    assert error(gradients[1], gradients[0]) < 1e-4  # A sum over 380,000 inputs is behind it.


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory as Linux does")
@pytest.mark.parametrize("threads", [1, 2])
def test_out_of_memory_on_any_thread_is_an_error(threads):
    """And not the end of the process, which computes on."""
    code = f"""
import resource, torch
from skimrnn.kernels import cpu
from tests.parity.cases import make_case
torch.set_num_threads({threads})
large, small = (make_case("lstm", (4, 8, 8, 16, n)).to(torch.float32) for n in (100_000, 4))
before = small.run(cpu).outputs
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000,) * 2)
try:
    large.run(cpu)
except MemoryError:
    print("no memory", torch.equal(small.run(cpu).outputs, before))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout == "no memory True\n", process.stderr


@pytest.mark.parametrize("cell", CELLS)
def test_at_the_ends_of_the_threshold_no_probability_is_too_small_or_too_large(cell, isa, seed):
    """Those of margins of 400 are 0 and 1 in float32."""
    case = make_case(cell, SIZES[0]).to(torch.float32)
    for bias, threshold, read in ((400.0, 0.0, True), (-400.0, 1.0, False)):
        case.weights[10] = torch.tensor([-bias, bias])
        for kernel in (cpu, reference):
            sequence = case.run(kernel, threshold=threshold)
            assert int(sequence.read.sum()) == (int(case.lengths.sum()) if read else 0)


def test_a_tie_is_skimmed(seed):
    case = make_case("lstm", SIZES[0]).to(torch.float32)
    case.weights[8:] = [torch.zeros_like(w) for w in case.weights[8:]]
    assert not case.run(cpu, threshold=0.5).read.any()
    assert not case.run(reference, threshold=0.5).read.any()


@pytest.mark.parametrize("cell", CELLS)
def test_changed_weights_are_seen(cell, seed):
    case = make_case(cell, SIZES[0]).to(torch.float32)
    before = case.run(cpu).outputs
    for index in range(12):
        with torch.no_grad():
            case.weights[index].add_(0.5)
        after, expected = case.run(cpu), case.run(reference)
        assert error(after.outputs, expected.outputs) < 1e-5, index
    assert not torch.equal(before, after.outputs)


@pytest.mark.parametrize("cell", CELLS)
def test_a_fused_optimiser_step_is_seen(cell, seed):
    """It does not move torch's version counter; nor does a write through `.data`."""
    case = make_case(cell, SIZES[0]).to(torch.float32, requires_grad=True)
    optimizer = torch.optim.Adam(case.weights, lr=0.05, fused=True)
    case.run(cpu, noise=case.noise).outputs.sum().backward()
    with torch.no_grad():
        before = case.run(cpu).outputs
        optimizer.step()
        after = case.run(cpu).outputs
        assert not torch.equal(before, after)
        assert error(after, case.run(reference).outputs) < 1e-5
        for weight in case.weights:
            weight.data.mul_(1.5)
        assert error(case.run(cpu).outputs, case.run(reference).outputs) < 1e-5


@pytest.mark.parametrize("operator", ["forward", "infer"])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_opcheck(cell, plain, operator, seed):
    training = operator == "forward"
    case = make_case(cell, (3, 9, 2, 4, 3)).to(torch.float32, requires_grad=training)
    noise = case.noise[..., 0] - case.noise[..., 1]
    memory = case.state[1] if cell == "lstm" else None
    half, cool, none, one = torch.tensor([0.5, 0.7, 0.0, 1.0], dtype=torch.float64)
    arguments = (cell, case.inputs, case.lengths, case.state[0], memory, case.weights, half, noise, cool, True)
    if plain:
        arguments = (*arguments[:5], case.weights[:4], none, None, one, False)
    torch.library.opcheck(getattr(torch.ops.skimrnn, operator).default, arguments)


def test_the_interpreter_is_free_meanwhile(threads):
    threads(1)
    case = make_case("lstm", (64, 256, 8, 1500, 1)).to(torch.float32)
    case.lengths[:] = 1500
    beats, done = [], threading.Event()

    def beat():
        while not done.is_set():
            beats.append(time.monotonic())
            time.sleep(0.001)

    other = threading.Thread(target=beat)
    other.start()
    started = time.monotonic()
    case.run(cpu, threshold=0.0)
    ended = time.monotonic()
    done.set()
    other.join()
    assert sum(started < b < ended for b in beats) > 3


def test_weights_that_share_memory_are_packed_anew(seed):
    """Of an expanded tensor there is less in memory than it has numbers."""
    case = make_case("lstm", SIZES[0]).to(torch.float32)
    wide = replace(case, weights=[*case.weights[:2], torch.ones(1).expand_as(case.weights[2]), *case.weights[3:]])
    dense = replace(case, weights=[weight.contiguous() for weight in wide.weights])
    for actual, expected in zip(values(wide.run(cpu)), values(dense.run(cpu)), strict=True):
        assert torch.equal(actual, expected)
    wide.run(cpu)
    known = cpu._packs.get(case.weights[1])
    assert known is None or known.weights[2]() is not wide.weights[2]


@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize("change", [lambda w: w[:-1], lambda w: w.double(), lambda w: w.to("meta")])
@pytest.mark.parametrize("training", [False, True])
def test_weights_that_do_not_fit_are_refused(training, change, place, seed):
    case = make_case("lstm", SIZES[0]).to(torch.float32, requires_grad=training)
    weights = [*case.weights]
    weights[place] = change(weights[place])
    with pytest.raises(ValueError, match="must be "):
        replace(case, weights=weights).run(cpu)


def test_vectors_that_do_not_fit_are_refused(seed):
    case = make_case("lstm", SIZES[0]).to(torch.float32)
    width = case.inputs.shape[2]
    for vectors in (torch.randn(7, width + 1), torch.randn(7, width).double(), torch.randn(7)):
        with pytest.raises(ValueError, match="vectors must be"):
            cpu.Frozen("lstm", case.weights, vectors)
    words = torch.zeros(case.inputs.shape[:2], dtype=torch.int64)
    with pytest.raises(IndexError, match="a word is not in the table"):
        cpu.Frozen("lstm", case.weights, torch.empty(0, width))(words, case.lengths, case.state)
    with pytest.raises(TypeError, match="words must be"):
        cpu.Frozen("lstm", case.weights, torch.randn(7, width))(words.to("meta"), case.lengths, case.state)


def test_a_small_cell_larger_than_the_big_one_is_refused(seed):
    with pytest.raises(ValueError, match="the small cell has 14 units, the big one 13"):
        make_case("lstm", (7, 13, 14, 9, 5)).to(torch.float32).run(cpu)


def test_the_way_back_takes_the_instructions_of_the_way_there(monkeypatch, seed):
    if len(cpu.SUPPORTED_ISAS) < 2:
        pytest.skip("this CPU or build has one instruction set")
    case = make_case("lstm", SIZES[0]).to(torch.float32, True)
    outputs = case.run(cpu, noise=case.noise).outputs
    monkeypatch.setenv("SKIMRNN_ISA", cpu.SUPPORTED_ISAS[-1])
    with pytest.raises(RuntimeError, match="leave SKIMRNN_ISA as it is"):
        outputs.sum().backward()


def test_bad_calls(seed, monkeypatch):
    case = make_case("lstm", SIZES[0]).to(torch.float32)
    for shape in ((2, 1), (3,)):
        with pytest.raises(ValueError, match="must be"):
            replace(case, lengths=torch.ones(shape, dtype=torch.int64)).run(cpu)
    with pytest.raises(ValueError, match="inputs must be"):
        replace(case, inputs=case.inputs[..., 1:]).run(cpu)
    with pytest.raises(ValueError, match="a state must be"):
        replace(case, state=tuple(s[..., 1:] for s in case.state)).run(cpu)
    for state in (case.state[:1], case.state * 2):
        with pytest.raises(ValueError, match="the state of lstm is 2 tensors"):
            replace(case, state=state).run(cpu)
        with pytest.raises(ValueError, match="the state of lstm is 2 tensors"):
            cpu.Frozen("lstm", case.weights)(case.inputs, case.lengths, state)
    case.lengths[1] = 0
    with pytest.raises(RuntimeError, match="Length of all samples has to be greater than 0"):
        case.run(cpu)
    case.lengths[1] = 10
    with pytest.raises(RuntimeError, match="greater than the number of steps"):
        case.run(cpu)
    monkeypatch.setenv("SKIMRNN_ISA", "mmx")
    with pytest.raises(UserError, match="mmx"):
        case.run(cpu)
