"""What `test_gpu` runs in a process of its own: the Triton kernels against the float64 reference, and themselves."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from skimrnn import SkimLSTM, kernels
from skimrnn.kernels import CellWeights, DecisionWeights, SkimSequence, gpu, reference
from skimrnn.layers.plain_lstm import padded_lstm
from tests.parity.cases import Case, assert_gradients_agree, error, make_case, values

DEVICE = "cpu" if gpu.INTERPRETED else "cuda"

# E, D, S, T, B: small, since the interpreter is slow; skipping, and no rest.
SIZES = [(3, 9, 4, 3, 5), (5, 20, 0, 3, 3), (1, 2, 2, 2, 2)]
if not gpu.INTERPRETED:  # Sizes that are trained.
    SIZES += [(100, 100, 10, 50, 32), (20, 100, 20, 12, 700), (30, 200, 20, 12, 9)]


@pytest.fixture(autouse=True)
def unwritten_is_not_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel leaves as it came shows."""

    def filled(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def make_filled(*arguments: Any, **options: Any) -> Tensor:
            tensor = make(*arguments, **options)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor.fill_(1)

        return make_filled

    monkeypatch.setattr(torch.Tensor, "new_empty", filled(torch.Tensor.new_empty))
    monkeypatch.setattr(torch, "empty_like", filled(torch.empty_like))


def on_device(case: Case, requires_grad: bool = False) -> Case:
    """The case in float32, where the kernel runs."""
    single = case.to(torch.float32)
    moved = [t.to(DEVICE).requires_grad_(requires_grad) for t in single.leaves()]
    states = len(single.state)
    weights = moved[1 + states :]
    return Case(case.cell, moved[0], single.lengths, tuple(moved[1 : 1 + states]), weights, single.noise.to(DEVICE))


def torch_lstm(case: Case) -> nn.LSTM:
    """Torch's layer with the big cell of a case, in float64 on the CPU."""
    layer = nn.LSTM(case.inputs.shape[2], case.state[0].shape[1]).double()
    layer.load_state_dict(dict(zip(layer.state_dict(), case.weights[:4], strict=True)))
    return layer


@pytest.mark.parametrize("line_by_line", [False, True])
@pytest.mark.parametrize("relaxed", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_training(
    sizes: tuple[int, int, int, int, int], relaxed: bool, line_by_line: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, last states and every gradient, under a random gradient of all results; weights taken in other parts."""
    if line_by_line:  # 64 lines are unrolled then: D = 20 has 84 rows.
        usual = gpu._sizes
        monkeypatch.setattr(gpu, "_sizes", lambda *sizes: usual(*sizes) | {"AT_ONCE": 1})
    case = make_case("lstm", sizes)
    double, single = case.to(torch.float64, True), on_device(case, True)
    expected = double.run(reference, **({"noise": double.noise, "temperature": 0.6} if relaxed else {"threshold": 0.4}))
    actual = single.run(gpu, **({"noise": single.noise, "temperature": 0.6} if relaxed else {"threshold": 0.4}))
    assert torch.equal(actual.read.cpu(), expected.read)
    upstream = [torch.randn_like(value) for value in values(expected)]
    for a, e in zip(values(actual), values(expected), strict=True):
        assert error(a.cpu(), e) < 1e-5
    wanted = torch.autograd.grad(values(expected), double.leaves(), upstream)
    given = torch.autograd.grad(values(actual), single.leaves(), [u.float().to(DEVICE) for u in upstream])
    assert_gradients_agree(given, wanted)


@pytest.mark.parametrize("relaxed", [True, False])
@pytest.mark.parametrize("result", range(4))
def test_gradients_through_one_result_alone(result: int, relaxed: bool, seed: int) -> None:
    """Of outputs, last h, last c and log-probabilities the others have none then."""
    case = make_case("lstm", SIZES[0])
    double, single = case.to(torch.float64, True), on_device(case, True)
    expected = double.run(reference, **({"noise": double.noise} if relaxed else {}))
    actual = single.run(gpu, **({"noise": single.noise} if relaxed else {}))
    upstream = torch.randn_like(values(expected)[result])
    wanted = torch.autograd.grad(values(expected)[result], double.leaves(), upstream, materialize_grads=True)
    given = torch.autograd.grad(values(actual)[result], single.leaves(), upstream.float().to(DEVICE))
    assert_gradients_agree(given, wanted)


def test_outputs_may_be_changed_in_place(seed: int) -> None:
    """Gradients do not look at them."""
    case = on_device(make_case("lstm", SIZES[0]), True)

    def gradients(change: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(change(case.run(gpu, noise=case.noise).outputs).sum(), case.leaves())

    assert all(map(torch.equal, gradients(lambda outputs: outputs.mul_(2.0)), gradients(lambda outputs: outputs * 2.0)))


@pytest.mark.parametrize("relaxed", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_the_same_call_gives_the_same_bits(sizes: tuple[int, int, int, int, int], relaxed: bool, seed: int) -> None:
    """Threads that did not wait for each other would now and then read what is not written yet."""
    case = on_device(make_case("lstm", sizes), True)
    runs = [case.run(gpu, noise=case.noise if relaxed else None) for _ in range(2)]
    assert all(map(torch.equal, *map(values, runs)))
    upstream = [torch.randn_like(value) for value in values(runs[0])]
    gradients = [torch.autograd.grad(values(run), case.leaves(), upstream) for run in runs]
    assert all(map(torch.equal, *gradients))


def test_autocast_changes_nothing(seed: int) -> None:
    case = on_device(make_case("lstm", SIZES[0]), True)

    def results() -> list[Tensor]:
        run = values(case.run(gpu, noise=case.noise, temperature=0.6))
        return [*run, *torch.autograd.grad(sum(value.sum() for value in run), case.leaves())]

    plain = results()
    with torch.autocast(DEVICE, torch.bfloat16):
        assert (case.inputs[0] @ case.weights[0].T).dtype == torch.bfloat16
        for given, wanted in zip(results(), plain, strict=True):
            assert torch.equal(given, wanted)


@pytest.mark.parametrize("result", ["all", "outputs", "log_probabilities"])
def test_the_operator_is_the_function(result: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded of a call, and gradients through some of its results alone."""
    case = on_device(make_case("lstm", SIZES[0]), True)

    def results() -> list[Tensor]:
        run = case.run(gpu, noise=case.noise, temperature=0.6)
        through = values(run) if result == "all" else [getattr(run, result)]
        gradients = torch.autograd.grad(sum(v.square().sum() for v in through), case.leaves(), materialize_grads=True)
        return [*values(run), run.read, *gradients]

    plain = results()
    monkeypatch.setattr("skimrnn.kernels.gpu.is_recorded", lambda _: True)
    assert all(map(torch.equal, results(), plain))
    assert sum(bool(gradient.any()) for gradient in plain[-len(case.leaves()) :]) >= 4


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace:DeprecationWarning")
@torch.no_grad()
@pytest.mark.parametrize("bidirectional", [False, True])
def test_traced_is_eager(bidirectional: bool, seed: int) -> None:
    """With other steps and another batch than those of the trace."""
    layer = SkimLSTM(3, 5, small_size=2, bidirectional=bidirectional).to(DEVICE).eval()
    traced = torch.jit.trace(layer, (torch.randn(4, 2, 3, device=DEVICE),), check_trace=False)
    for steps in (3, 5):
        inputs = torch.randn(steps, 3, 3, device=DEVICE)
        assert torch.equal(traced(inputs)[0], layer(inputs)[0])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_exported_is_eager(bidirectional: bool, seed: int) -> None:
    layer = SkimLSTM(3, 5, small_size=2, bidirectional=bidirectional).to(DEVICE).eval()
    shapes = ({0: torch.export.Dim("T")},)
    with torch.no_grad():
        program = torch.export.export(layer, (torch.randn(4, 2, 3, device=DEVICE),), dynamic_shapes=shapes)
        for steps in (3, 5):
            inputs = torch.randn(steps, 2, 3, device=DEVICE)
            assert torch.equal(program.module()(inputs)[0], layer(inputs)[0])


@pytest.mark.skipif(gpu.INTERPRETED, reason="CUDA graphs need a GPU")
def test_compiled_for_graphs_is_eager(seed: int) -> None:
    """Without a call of these sizes before, which would have made what the operators keep outside a graph's memory."""
    layer = SkimLSTM(3, 7, small_size=2).to(DEVICE).eval()
    compiled, inputs = torch.compile(layer, mode="reduce-overhead"), torch.randn(4, 2, 3, device=DEVICE)
    with torch.no_grad():
        results = [compiled(inputs)[0].clone() for _ in range(3)]
        assert all(torch.equal(result, layer(inputs)[0]) for result in results)


def test_operators_stay_out_of_cuda_graphs() -> None:
    for operator in (torch.ops.skimrnn.gpu_forward, torch.ops.skimrnn.gpu_backward):
        assert torch.Tag.cudagraph_unsafe in operator.default.tags


@pytest.mark.parametrize("sizes", SIZES)
def test_hard_decisions_backwards_without_a_gradient(sizes: tuple[int, int, int, int, int], seed: int) -> None:
    """Nothing is kept for a way back then."""
    case = make_case("lstm", sizes)
    expected = case.run(reference, threshold=0.45, reverse=True)
    actual = on_device(case).run(gpu, threshold=0.45, reverse=True)
    assert torch.equal(actual.read.cpu(), expected.read)
    assert all(error(a.cpu(), e) < 1e-5 for a, e in zip(values(actual), values(expected), strict=True))


@pytest.mark.parametrize("sizes", SIZES)
def test_reading_all_is_torchs_layer(sizes: tuple[int, int, int, int, int], seed: int) -> None:
    double = make_case("lstm", sizes)
    case = on_device(double)
    layer = torch_lstm(double)
    packed = nn.utils.rnn.pack_padded_sequence(double.inputs, case.lengths, enforce_sorted=False)
    with torch.no_grad():
        output, last = layer(packed, tuple(s[None] for s in double.state))
    output, _ = nn.utils.rnn.pad_packed_sequence(output)
    read = case.run(gpu, threshold=0.0)
    plain, plain_last = gpu.lstm(case.inputs, case.lengths, case.state, CellWeights(*case.weights[:4]))
    for outputs, state in ((read.outputs, read.state), (plain, (plain_last,))):
        assert error(outputs.cpu(), output) < 1e-5
        assert all(error(a.cpu(), e[0]) < 1e-5 for a, e in zip(state, last, strict=False))


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[-1]])
def test_plain_lstms_differentiate(sizes: tuple[int, int, int, int, int], seed: int) -> None:
    """Gradients of the plain LSTM are torch's, for two models in one launch."""
    doubles = [make_case("lstm", sizes).to(torch.float64, True) for _ in range(2)]
    cases = [on_device(case, True) for case in doubles]
    _, size, _, steps, batch = sizes
    upstream = torch.randn(2, steps, batch, size)
    outputs, _ = gpu.lstm(
        torch.stack([c.inputs for c in cases]),
        torch.stack([c.lengths for c in cases]),
        tuple(torch.stack(s) for s in zip(*(c.state for c in cases), strict=True)),
        CellWeights(*(torch.stack([c.weights[n] for c in cases]) for n in range(4))),
    )
    outputs.backward(upstream.to(DEVICE))
    for case, double, gradient in zip(cases, doubles, upstream, strict=True):
        given = [leaf.grad for leaf in (case.inputs, *case.state, *case.weights[:4])]
        layer = torch_lstm(double)
        output, _ = layer(double.inputs, tuple(s[None] for s in double.state))
        valid = torch.arange(steps)[:, None] < case.lengths
        leaves = [double.inputs, *double.state, *layer.parameters()]
        wanted = torch.autograd.grad(output, leaves, gradient * valid[..., None])
        assert [error(a.cpu(), e) < 1e-5 for a, e in zip(given, wanted, strict=True)] == [True] * len(wanted)


@pytest.mark.parametrize("bias", [True, False])
def test_both_directions_of_torchs_layer_run_in_one_launch(
    bias: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = nn.LSTM(3, 5, 2, bidirectional=True, bias=bias)
    double = copy.deepcopy(layer).double()  # On the CPU: on a GPU torch's own rounds its products.
    layer = layer.to(DEVICE)
    inputs, lengths = torch.randn(4, 3, 3, device=DEVICE, requires_grad=True), torch.tensor([2, 4, 3])
    launches, launch = [], gpu._launch_forward
    monkeypatch.setattr(gpu, "_launch_forward", lambda *arguments: launches.append(1) or launch(*arguments))
    outputs, last = padded_lstm(layer, inputs, lengths)
    assert len(launches) == 2  # One a layer.
    exact = inputs.detach().cpu().double().requires_grad_()
    expected, (hidden, _) = double(nn.utils.rnn.pack_padded_sequence(exact, lengths, enforce_sorted=False))
    expected, _ = nn.utils.rnn.pad_packed_sequence(expected)
    assert error(outputs.cpu(), expected) < 1e-5 and error(last.cpu(), torch.cat([*hidden[-2:]], dim=-1)) < 1e-5
    given = torch.autograd.grad(outputs.square().sum(), [inputs, *layer.parameters()])
    wanted = torch.autograd.grad(expected.square().sum(), [exact, *double.parameters()])
    assert all(error(g.cpu(), w) < 1e-5 for g, w in zip(given, wanted, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_skimming_leaves_the_rest_alone(training: bool, seed: int) -> None:
    sizes = SIZES[0]
    case = on_device(make_case("lstm", sizes), training)
    sequence = case.run(gpu, threshold=1.0)
    assert not sequence.read.any()
    for before, after in zip(case.state, sequence.state, strict=True):
        assert torch.equal(before[:, sizes[2] :], after[:, sizes[2] :])
        assert not torch.equal(before[:, : sizes[2]], after[:, : sizes[2]])


@pytest.mark.parametrize("training", [True, False])
def test_nan_is_read(training: bool, seed: int) -> None:
    """Where all else is skipped, it reaches every unit, as in a plain layer, and no other sequence."""
    case = make_case("lstm", SIZES[1])
    case.lengths[:], case.weights[10] = 3, torch.tensor([-50.0, 50.0])
    case.inputs[1, 2, 0] = torch.nan
    sequence = on_device(case, training).run(gpu)
    lost = torch.zeros(3, 3, 20, dtype=torch.bool)
    lost[1:, 2] = True
    assert torch.equal(sequence.outputs.isnan().cpu(), lost)
    assert torch.equal(sequence.read.cpu(), lost[..., 0])


def run_together(cases: list[Case], temperature: Tensor | float) -> SkimSequence:
    """Several models in one launch."""

    def stack(parts: Iterable[Tensor]) -> Tensor:
        return torch.stack([*parts])

    weights = [stack(parts) for parts in zip(*(case.weights for case in cases), strict=True)]
    return gpu.skim_lstm(
        stack(case.inputs for case in cases),
        stack(case.lengths for case in cases),
        tuple(stack(parts) for parts in zip(*(case.state for case in cases), strict=True)),
        CellWeights(*weights[:4]),
        CellWeights(*weights[4:8]),
        DecisionWeights(*weights[8:]),
        noise=stack(case.noise for case in cases),
        temperature=temperature,
    )


def test_one_temperature_is_that_of_all_models(seed: int) -> None:
    cases = [on_device(make_case("lstm", SIZES[0])) for _ in range(3)]
    one, each = run_together(cases, torch.tensor(0.6)), run_together(cases, torch.tensor([0.6, 0.6, 0.6]))
    assert all(map(torch.equal, values(one), values(each)))


def test_models_together_are_models_one_by_one(seed: int) -> None:
    """To the bit, results and gradients, each model at a temperature of its own."""
    cases = [on_device(make_case("lstm", (3, 6, 2, 3, 5)), True) for _ in range(3)]
    temperatures = [0.5, 0.8, 1.0]
    together = run_together(cases, torch.tensor(temperatures, device=DEVICE))
    upstream = [torch.randn_like(value) for value in values(together)]
    leaves = [leaf for case in cases for leaf in case.leaves()]
    given = iter(torch.autograd.grad(values(together), leaves, upstream))
    for number, case in enumerate(cases):
        alone = case.run(gpu, noise=case.noise, temperature=temperatures[number])
        assert all(error(t[number], a) < 1e-6 for t, a in zip(values(together), values(alone), strict=True))
        assert torch.equal(together.read[number], alone.read)
        wanted = torch.autograd.grad(values(alone), case.leaves(), [u[number] for u in upstream])
        assert all(error(next(given), gradient) < 1e-6 for gradient in wanted)


@pytest.mark.parametrize("training", [True, False])
def test_both_directions_of_a_layer_run_in_one_launch(
    training: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = SkimLSTM(3, 5, small_size=2, bidirectional=True).to(DEVICE).train(training)
    inputs = nn.utils.rnn.pack_padded_sequence(
        torch.randn(4, 3, 3).to(DEVICE), torch.tensor([2, 4, 3]), enforce_sorted=False
    )
    launches = []
    launch = gpu._launch_forward
    monkeypatch.setattr(gpu, "_launch_forward", lambda *arguments: launches.append(1) or launch(*arguments))
    torch.manual_seed(0)
    output, last, decisions = layer(inputs, return_decisions=True)
    assert len(launches) == 1
    monkeypatch.setattr(kernels, "_gpu", None)
    monkeypatch.setattr(kernels, "KERNEL", "reference")
    torch.manual_seed(0)
    if training and DEVICE == "cuda":
        return  # The reference draws its noise for one direction after the other, which gives other numbers there.
    expected, expected_last, expected_decisions = layer(inputs, return_decisions=True)
    assert error(output.data, expected.data) < 1e-5
    assert all(error(a, e) < 1e-5 for a, e in zip(last, expected_last, strict=True))
    assert torch.equal(decisions.read, expected_decisions.read)


def test_an_empty_batch_gives_empty_results(seed: int) -> None:
    case = on_device(make_case("lstm", (3, 5, 2, 4, 0)), True)
    sequence = case.run(gpu, noise=case.noise)
    assert [value.shape for value in values(sequence)] == [(4, 0, 5), (0, 5), (0, 5), (4, 0, 2)]
    sequence.outputs.sum().backward()
    assert not any(weight.grad.any() for weight in case.weights)


def test_more_than_32_bits_can_count_is_refused() -> None:
    case = on_device(make_case("lstm", (1, 5, 2, 1, 1)))
    case.inputs = case.inputs.expand(1 << 20, 128, 1)
    case.lengths = torch.ones(128, dtype=torch.int64)
    case.state = tuple(s.expand(128, 5) for s in case.state)
    with pytest.raises(ValueError, match="split the batch"):
        case.run(gpu)


@pytest.mark.parametrize("relaxed", [True, False])
def test_opcheck(relaxed: bool, seed: int) -> None:
    """Both operators, of inputs that lie batch first."""
    models, steps, batch, width, hidden, small = 2, 2, 3, 4, 3, 1

    def random(*shape: int) -> Tensor:
        return torch.randn(models, *shape, device=DEVICE, requires_grad=True)

    rows = (4 * hidden, 4 * small, 2)
    weights = [random(n, *rest) for n in rows for rest in ((width,), (hidden,), (), ())]
    lengths = torch.tensor([[1, 2, 2], [2, 2, 1]], device=DEVICE)
    noise = torch.randn(models, steps, batch, 2, device=DEVICE) if relaxed else None
    temperature = torch.ones(models, device=DEVICE)
    inputs, h, c = random(batch, steps, width).transpose(1, 2), random(batch, hidden), random(batch, hidden)
    arguments = (inputs, lengths, h, c, weights, noise, temperature, 0.5, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.skimrnn.gpu_forward.default, arguments, test_utils=checks)
    outputs, *_, log_p, _, tape, states, cells, packed = torch.ops.skimrnn.gpu_forward(*arguments)
    for d_outputs, of_inputs in ((torch.randn_like(outputs), True), (None, False)):
        kept = [value.detach() for value in (log_p, tape, states, cells, packed)]
        gradients = (d_outputs, torch.randn_like(h).detach(), None, torch.randn_like(log_p).detach())
        arguments = (inputs.detach(), lengths, [*rows], temperature, relaxed, *kept, *gradients, of_inputs)
        checks = ("test_schema", "test_faketensor")
        torch.library.opcheck(torch.ops.skimrnn.gpu_backward.default, arguments, test_utils=checks)
