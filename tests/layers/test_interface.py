"""The layers beside `nn.LSTM` and `nn.GRU`: every kind of input, state, layer and direction; the same errors."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.backends.debugging import aot_eager
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skimrnn import SkimGRU, SkimLSTM, kernels
from skimrnn.layers.plain_lstm import padded_lstm

T, B, E, D, S = 6, 4, 5, 9, 3
LENGTHS = torch.tensor([3, 6, 1, 5])
PAIRS = [(SkimLSTM, nn.LSTM), (SkimGRU, nn.GRU)]
SHAPES = [{"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True, "bias": False}]


def start_from(skimming, layer, **options):
    return (skimming.from_lstm if skimming is SkimLSTM else skimming.from_gru)(layer, S, **options)


def state_for(layer, batch=B):
    shape = (layer.num_layers * (2 if layer.bidirectional else 1), *([batch] if batch else []), D)
    dtype = layer.weight_ih_l0.dtype
    state = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    return state if isinstance(layer, nn.LSTM | SkimLSTM) else state[0]


def flat(result):
    """All tensors of what a layer gives."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, nn.utils.rnn.PackedSequence):
        return [result.data, result.batch_sizes, result.sorted_indices, result.unsorted_indices]
    return [tensor for part in result for tensor in flat(part)]


def assert_close(actual, expected, tolerance=1e-6):
    for a, e in zip(flat(actual), flat(expected), strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("skimming, plain", PAIRS)
@torch.no_grad()
def test_reading_everything_is_torchs_layer_on_every_kind_of_input(skimming, plain, options, dtype, seed):
    theirs = plain(E, D, **options, batch_first=True, dtype=dtype).eval()
    ours = start_from(skimming, theirs)
    ours.threshold = 0.0
    inputs = torch.randn(B, T, E, dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    for arguments in (
        (inputs,),
        (inputs, state_for(theirs)),
        (inputs[0],),
        (inputs[0], state_for(theirs, batch=None)),
        (pack_padded_sequence(inputs, LENGTHS, batch_first=True, enforce_sorted=False), state_for(theirs)),
    ):
        assert_close(ours(*arguments), theirs(*arguments), tolerance)
    sorted_lengths = LENGTHS.sort(descending=True).values
    packed = pack_padded_sequence(inputs, sorted_lengths, batch_first=True)
    assert ours(packed)[0].sorted_indices is None
    torch.testing.assert_close(ours(packed)[0].data, theirs(packed)[0].data, rtol=0, atol=tolerance)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("skimming, plain", PAIRS)
def test_what_starts_from_torchs_layer_has_its_options_and_the_threshold_that_is_asked_for(skimming, plain, training):
    theirs = plain(E, D, 2, batch_first=True, dropout=0.3).train(training)
    ours = start_from(skimming, theirs, threshold=0.7)
    assert (ours.batch_first, ours.dropout, ours.training, ours.threshold) == (True, 0.3, training, 0.7)
    assert start_from(skimming, theirs).threshold == 0.5


@pytest.mark.parametrize("skimming, plain", PAIRS)
def test_positions_mean_what_they_mean_to_torch(skimming, plain):
    """As in `nn.LSTM(E, D, 2)`; what torch does not have goes by name."""
    names = ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
    settings = (2, False, True, 0.3, True)
    ours, theirs = skimming(E, D, *settings, small_size=S), plain(E, D, *settings)
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names] == [*settings]
    with pytest.raises(TypeError, match="small_size"):
        skimming(E, D, S)


@pytest.mark.parametrize("skimming, _", PAIRS)
def test_initial_weights_fill_the_range_of_torchs(skimming, _, seed):
    layer, bound = skimming(E, D, 2, small_size=S, bidirectional=True), 1 / math.sqrt(D)
    for cell in (("weight_", "bias_"), "small_", "decision_"):
        drawn = [parameter.detach().flatten() for name, parameter in layer.named_parameters() if name.startswith(cell)]
        assert 0.9 * bound < torch.cat(drawn).abs().max() <= bound


@pytest.mark.parametrize("skimming, _", PAIRS)
@torch.no_grad()
def test_decisions_have_time_first_whatever_the_order_of_the_input(skimming, _, seed):
    layer = skimming(E, D, 2, small_size=S, bidirectional=True, batch_first=True).eval()
    inputs = torch.randn(B, T, E)
    decisions = layer(inputs, return_decisions=True)[2]
    layer.batch_first = False
    expected = layer(inputs.transpose(0, 1), return_decisions=True)[2]
    assert expected.read.shape == (4, T, B)
    assert all(map(torch.equal, decisions, expected))


@pytest.mark.parametrize("options", [{}, *SHAPES])
@pytest.mark.parametrize("skimming, _", PAIRS)
@torch.no_grad()
def test_packed_is_one_by_one(skimming, _, options, seed):
    layer = skimming(E, D, small_size=S, **options).eval()
    inputs, state = torch.randn(T, B, E), state_for(layer)
    packed = pack_padded_sequence(inputs, LENGTHS, enforce_sorted=False)
    output, last, decisions = layer(packed, state, return_decisions=True)
    output, _ = pad_packed_sequence(output)
    for b, length in enumerate(LENGTHS):
        own_state = tuple(s[:, b] for s in state) if isinstance(state, tuple) else state[:, b]
        alone, alone_last, alone_decisions = layer(inputs[:length, b], own_state, return_decisions=True)
        assert torch.equal(output[:length, b], alone)
        assert all(torch.equal(whole[:, b], one) for whole, one in zip(flat(last), flat(alone_last), strict=True))
        assert torch.equal(decisions.read[:, :length, b], alone_decisions.read)
        assert torch.equal(decisions.log_probabilities[:, :length, b], alone_decisions.log_probabilities)
        assert not decisions.read[:, length:, b].any()
        assert not decisions.log_probabilities[:, length:, b].any()


@pytest.mark.parametrize("skimming, _", PAIRS)
@torch.no_grad()
def test_step_by_step_is_the_whole(skimming, _, seed):
    layer = skimming(E, D, 2, small_size=S).eval()
    inputs, state = torch.randn(T, B, E), state_for(layer)
    whole, last = layer(inputs, state)
    steps = []
    for step in inputs:
        output, state = layer(step[None], state)
        steps.append(output)
    assert torch.equal(torch.cat(steps), whole)
    assert all(map(torch.equal, flat(state), flat(last)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("skimming, _", PAIRS)
def test_float64_is_the_reference_and_float32_is_near(skimming, _, training, seed):
    single = skimming(E, D, 2, small_size=S, bidirectional=True).train(training)
    double = copy.deepcopy(single).double()
    inputs = torch.randn(T, B, E)
    torch.manual_seed(seed)
    results = single(inputs)
    if not training:  # Noise differs by type.
        assert_close([r.double() for r in flat(results)], double(inputs.double()), 1e-5)
    flat(results)[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in single.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("skimming, _", PAIRS)
@pytest.mark.parametrize("training", [True, False])
def test_compiled_is_eager(skimming, _, training, dtype, seed):
    layer = skimming(E, D, small_size=S, bidirectional=True, dtype=dtype).train(training)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    inputs = torch.randn(3, B, E, dtype=dtype, requires_grad=True)  # The reference is compiled step by step.
    for gradient in (True, False):
        with torch.set_grad_enabled(gradient):
            torch.manual_seed(seed)
            expected = layer(inputs)
            torch.manual_seed(seed)
            actual = compiled(inputs)
            assert_close(actual, expected, 0)
            if gradient:
                wanted = torch.autograd.grad(expected[0].square().sum(), [inputs, *layer.parameters()])
                given = torch.autograd.grad(actual[0].square().sum(), [inputs, *layer.parameters()])
                assert_close(given, wanted, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("skimming, _", PAIRS)
@pytest.mark.parametrize("training", [True, False])
def test_one_compiled_graph_serves_every_temperature_or_threshold(skimming, _, training, dtype, seed):
    if kernels.KERNEL == "triton" and not training:
        pytest.skip("the Triton kernels take the threshold as a constant")
    torch._dynamo.reset()  # Other tests have compiled the same code.
    layer, graphs = skimming(E, D, small_size=S, dtype=dtype).train(training), []

    def backend(graph, inputs):
        graphs.append(graph)
        return aot_eager(graph, inputs)

    compiled, inputs = torch.compile(layer, fullgraph=True, backend=backend), torch.randn(3, B, E, dtype=dtype)
    for setting in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5):
        if training:
            layer.temperature = setting
        else:
            layer.threshold = setting
        torch.manual_seed(seed)
        expected = layer(inputs)
        torch.manual_seed(seed)
        assert_close(compiled(inputs), expected, 0)
    assert len(graphs) == 2  # The second takes any number.


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("skimming, _", PAIRS)
@torch.no_grad()
def test_traced_is_eager_and_the_weights_are_packed_once(skimming, _, bias, seed, monkeypatch):
    cpu = pytest.importorskip("skimrnn.kernels.cpu", reason="installed without the compiled kernels")
    layer = skimming(E, D, small_size=S, bias=bias).eval()
    packs, pack = [], cpu._pack
    monkeypatch.setattr(cpu, "_pack", lambda *arguments: packs.append(1) or pack(*arguments))
    inputs = torch.randn(T, B, E)
    expected = layer(inputs), layer(inputs)
    assert len(packs) == (kernels.KERNEL == "cpu")
    traced = torch.jit.trace(layer, (inputs,), check_trace=False)
    assert_close((traced(inputs), traced(-inputs)), (expected[0], layer(-inputs)), 0)
    if kernels.KERNEL == "cpu":  # Of the reference each step is recorded.
        for steps, batch in ((T + 2, B), (T - 1, B + 1)):
            others = torch.randn(steps, batch, E)
            assert_close(traced(others), layer(others), 0)


@pytest.mark.parametrize("skimming, plain", PAIRS)
def test_other_tensors_may_stand_in_for_the_weights(skimming, plain, seed):
    """As torch's layers take pruning, parametrisations and functional calls."""
    inputs = torch.randn(T, B, E)
    theirs = plain(E, D).eval()
    ours = start_from(skimming, theirs)
    ours.threshold = 0.0
    halves = {name: weight.detach() / 2 for name, weight in theirs.named_parameters()}
    assert_close(
        torch.func.functional_call(ours, halves, (inputs,)), torch.func.functional_call(theirs, halves, (inputs,))
    )
    for layer in (ours, theirs):
        prune.l1_unstructured(layer, "weight_hh_l0", 0.5)
        parametrizations.weight_norm(layer, "weight_ih_l0")
    assert_close(ours(inputs), theirs(inputs))
    given, wanted = (
        torch.autograd.grad(layer(inputs)[0].square().sum(), layer.weight_hh_l0_orig) for layer in (ours, theirs)
    )
    assert_close(given, wanted, 1e-5)


@pytest.mark.parametrize("skimming, plain", PAIRS)
def test_under_autocast_it_takes_what_torchs_layer_takes(skimming, plain, seed):
    layer, inputs = skimming(E, D, small_size=S).eval(), torch.randn(T, B, E).bfloat16()
    state = state_for(layer)
    half = tuple(s.bfloat16() for s in state) if isinstance(state, tuple) else state.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        plain(E, D)(inputs)
        given = layer(inputs, half), layer(pack_padded_sequence(inputs, LENGTHS, enforce_sorted=False))
    inputs = inputs.float()
    state = tuple(s.float() for s in half) if isinstance(half, tuple) else half.float()
    if kernels.KERNEL == "cpu":  # The reference's products are torch's, which autocast computes in bfloat16.
        assert_close(given[0], layer(inputs, state), 0)
        assert_close(given[1], layer(pack_padded_sequence(inputs, LENGTHS, enforce_sorted=False)), 0)
    with pytest.raises(ValueError, match="does not match weight dtype"):
        layer(inputs.bfloat16())


@pytest.mark.parametrize("skimming, plain", PAIRS)
@torch.no_grad()
def test_another_devices_weights_or_state_are_refused_in_torchs_words(skimming, plain):
    inputs = torch.randn(T, B, E)
    for layer in (plain, skimming):
        elsewhere = layer(E, D, device="meta") if layer is plain else layer(E, D, small_size=S, device="meta").eval()
        with pytest.raises(
            RuntimeError, match="not at the same device, found input tensor at cpu and parameter tensor"
        ):
            elsewhere(inputs)
    layer = skimming(E, D, small_size=S).eval()
    state = state_for(layer)
    state = tuple(s.to("meta") for s in state) if isinstance(state, tuple) else state.to("meta")
    with pytest.raises(RuntimeError, match="not at the same device, found input tensor at cpu and hidden tensor"):
        layer(inputs, state)


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0"])
@pytest.mark.parametrize("change", [parametrizations.weight_norm, lambda m, n: prune.l1_unstructured(m, n, 0.5)])
@pytest.mark.parametrize("skimming, plain", PAIRS)
@torch.no_grad()
def test_weights_that_are_computed_are_taken_over(skimming, plain, change, name, seed):
    theirs = plain(E, D).eval()
    change(theirs, name)
    ours = start_from(skimming, theirs)
    ours.threshold = 0.0
    inputs = torch.randn(T, B, E)
    assert_close(ours(inputs), theirs(inputs))


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("skimming, _", PAIRS)
@torch.no_grad()
def test_what_was_made_without_memory_can_be_loaded(skimming, _, assign, seed):
    layer, inputs = skimming(E, D, small_size=S, bias=False).eval(), torch.randn(T, B, E)
    deferred = skimming(E, D, small_size=S, bias=False, device="meta").eval()
    if not assign:
        deferred = deferred.to_empty(device="cpu")
        for buffer in deferred.buffers():
            buffer.fill_(1e9)
    deferred.load_state_dict(layer.state_dict(), assign=assign)
    assert_close(deferred(inputs), layer(inputs), 0)


@pytest.mark.parametrize("skimming, plain", PAIRS)
def test_without_memory_there_are_shapes(skimming, plain):
    for factory in (partial(skimming, E, D, small_size=S), partial(plain, E, D)):
        outputs = factory(device="meta").eval()(torch.randn(T, B, E, device="meta"))[0]
        assert outputs.shape == (T, B, D) and outputs.is_meta
        with FakeTensorMode(), torch.no_grad():
            layer, inputs = factory().eval(), torch.randn(T, B, E)
            assert layer(inputs)[0].shape == (T, B, D)
        with torch.no_grad(), pytest.raises(AssertionError, match="FakeTensorMode"):
            layer(inputs)  # Out of the mode that they were made in.


@pytest.mark.parametrize("skimming, _", PAIRS)
@torch.no_grad()
def test_a_graph_of_it_is_it(skimming, _, seed):
    layer, inputs = skimming(E, D, small_size=S).eval(), torch.randn(T, B, E)
    graph = make_fx(lambda x: layer(x)[0])(inputs)
    assert_close(graph(-inputs), layer(-inputs)[0], 0)


@pytest.mark.parametrize("skimming, _", PAIRS)
@torch.no_grad()
def test_the_default_device_is_not_asked(skimming, _, seed):
    layer, inputs = skimming(E, D, 2, small_size=S).eval(), torch.randn(T, B, E)
    packed = pack_padded_sequence(inputs, LENGTHS, enforce_sorted=False)
    expected = layer(packed), layer(inputs)
    with torch.device("meta"):
        given = layer(packed), layer(inputs)
    assert_close(given, expected, 0)


@pytest.mark.parametrize("skimming, _", PAIRS)
def test_transforms_of_functions(skimming, _, seed):
    """Derivatives by `torch.func`, forward and backward, and a batch of calls."""
    layer, inputs = skimming(E, D, small_size=S).eval(), torch.randn(T, B, E)
    parameters = dict(layer.named_parameters())

    def total(weights, x):
        return torch.func.functional_call(layer, weights, (x,))[0].square().sum()

    given = torch.func.grad(total)(parameters, inputs)
    wanted = torch.autograd.grad(layer(inputs)[0].square().sum(), list(parameters.values()))
    assert_close(list(given.values()), wanted, 1e-5)
    with torch.no_grad():
        many = torch.randn(3, T, B, E)
        assert_close(torch.vmap(lambda x: layer(x)[0])(many), torch.stack([layer(x)[0] for x in many]))
        layer.requires_grad_(False)
        tangent = torch.randn_like(inputs)
        _, slope = torch.func.jvp(lambda x: layer(x)[0], (inputs,), (tangent,))
        # By the derivative backward: a difference quotient jumps where a decision flips between its two points.
        jacobian = torch.autograd.functional.jacobian(lambda x: layer(x)[0], inputs)
        assert_close(slope, torch.tensordot(jacobian, tangent, 3), 1e-5)
        with forward_ad.dual_level():
            dual = layer(forward_ad.make_dual(inputs, tangent))[0]
            assert_close(forward_ad.unpack_dual(dual).tangent, slope)


@pytest.mark.parametrize("skimming, _", PAIRS)
def test_second_derivatives_are_refused_where_there_are_none(skimming, _, seed):
    if kernels.KERNEL != "cpu":
        pytest.skip("the compiled kernels are not in use")
    inputs = torch.randn(T, B, E, requires_grad=True)
    (slope,) = torch.autograd.grad(skimming(E, D, small_size=S)(inputs)[0].sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="SKIMRNN_KERNEL=reference"):
        slope.square().sum().backward()


@pytest.mark.parametrize("kernel", ["cpu", "reference"])
@pytest.mark.parametrize("lengths", [[3, 0, 1, 2], [1, T + 1, 2, 3]])
def test_lengths_that_cannot_be_are_refused(lengths, kernel, monkeypatch):
    if kernel == "cpu" and kernels.KERNEL != "cpu":
        pytest.skip("the compiled kernels are not in use")
    monkeypatch.setattr(kernels, "KERNEL", kernel)
    inputs, lengths = torch.randn(T, B, E), torch.tensor(lengths)
    for run in (SkimLSTM(E, D, small_size=S).run_padded, partial(padded_lstm, nn.LSTM(E, D))):
        with pytest.raises(ValueError, match=f"between 1 and {T}"):
            run(inputs, lengths)
        outputs, *_ = run(inputs, LENGTHS.int())
        assert outputs.shape == (T, B, D)


@pytest.mark.parametrize("skimming, plain", PAIRS)
def test_it_is_called_as_torchs_layer_is(skimming, plain, seed):
    layer, inputs = skimming(E, D, small_size=S).eval(), torch.randn(T, B, E)
    state = state_for(layer)
    layer.flatten_parameters()
    assert_close(layer(input=inputs, hx=state), layer(inputs, state), 0)


def message_of(function):
    with pytest.raises((RuntimeError, ValueError)) as caught:
        function()
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize(
    "inputs, state",
    [
        ((T, B, E + 1), None),
        ((T, B, E, 1), None),
        ((0, B, E), None),
        ((T, B, E), (1, B + 1, D)),
        ((T, B, E), (2, B, D)),
        ((T, B, E), (1, D)),
        ((T, E), (1, 1, D)),
        ((T, E), (2, D)),
    ],
)
@pytest.mark.parametrize("skimming, plain", PAIRS)
def test_errors_are_torchs(skimming, plain, inputs, state, seed):
    state = None if state is None else torch.zeros(state)
    if skimming is SkimLSTM and state is not None:
        state = (state, state)
    ours, theirs = skimming(E, D, small_size=S), plain(E, D)
    expected = message_of(lambda: theirs(torch.zeros(inputs), state))
    assert message_of(lambda: ours(torch.zeros(inputs), state)) == expected


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_skim_lstm_takes_two_states(count, seed):
    state = tuple(torch.zeros(3, 1, B, D)[:count])
    with pytest.raises(RuntimeError, match=r"^lstm expects two hidden states$"):
        SkimLSTM(E, D, small_size=S)(torch.zeros(T, B, E), state)


@pytest.mark.parametrize(
    "setting, wrong",
    [("threshold", (-0.1, 1.1, math.nan, "x", None)), ("temperature", (0, -1.0, math.inf, math.nan, "x", None))],
)
def test_settings_that_cannot_be_are_refused(setting, wrong):
    layer = SkimGRU(E, D, small_size=S)
    before = getattr(layer, setting)
    for value in wrong:
        with pytest.raises((ValueError, TypeError)):
            setattr(layer, setting, value)
    assert getattr(layer, setting) == before
    with pytest.raises(ValueError, match=r"threshold must lie between 0 and 1, not 1\.5"):
        SkimLSTM(E, D, small_size=S, threshold=1.5)


@pytest.mark.parametrize("skimming, plain", PAIRS)
def test_a_wrong_type_is_refused_as_torch_refuses_it(skimming, plain, seed):
    inputs = torch.zeros(T, B, E, dtype=torch.float64)
    ours, theirs = (
        message_of(lambda layer=layer: layer(inputs)) for layer in (skimming(E, D, small_size=S), plain(E, D))
    )
    assert ours[0] is theirs[0]
    if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13):  # Torch 2.9 says it in other words.
        assert ours == theirs
    state = torch.zeros(1, B, D, dtype=torch.float64)
    with pytest.raises(ValueError, match="state dtype"):
        skimming(E, D, small_size=S)(inputs.float(), (state, state) if skimming is SkimLSTM else state)


@pytest.mark.parametrize("options", [{"num_layers": 0}, {"dropout": 2}])
@pytest.mark.parametrize("skimming, plain", PAIRS)
def test_bad_options_are_torchs_errors(skimming, plain, options):
    assert message_of(lambda: skimming(E, D, small_size=S, **options)) == message_of(lambda: plain(E, D, **options))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("skimming, plain", PAIRS)
def test_an_empty_batch_gives_empty_results(skimming, plain, training):
    layer = skimming(E, D, 2, small_size=S, bidirectional=True).train(training)
    ours = layer(torch.zeros(T, 0, E))
    theirs = plain(E, D, 2, bidirectional=True)(torch.zeros(T, 0, E))
    assert [t.shape for t in flat(ours)] == [t.shape for t in flat(theirs)]
    if training:
        flat(ours)[0].sum().backward()
        assert all(parameter.grad is not None and not parameter.grad.any() for parameter in layer.parameters())


def test_state_dict_has_torchs_names_and_more():
    theirs = set(nn.LSTM(E, D, 2, bidirectional=True).state_dict())
    ours = set(SkimLSTM(E, D, 2, small_size=S, bidirectional=True).state_dict())
    assert ours == {prefix + name for prefix in ("", "small_", "decision_") for name in theirs}


def test_dropout_acts_between_layers_in_training(seed):
    layer = SkimLSTM(E, D, 2, small_size=S, dropout=1.0)
    inputs = torch.randn(T, B, E)
    layer.threshold = 0.0
    torch.manual_seed(seed)
    with torch.no_grad():
        assert layer.eval()(inputs)[0].abs().max() > 0
        before = layer.train()(inputs)[0]
        torch.manual_seed(0)
        first = layer(inputs)[0]
        torch.manual_seed(0)
        assert torch.equal(layer(-inputs)[0], first)  # The second layer sees only zeros.
    assert before.shape == (T, B, D)


@pytest.mark.parametrize(("skimming", "plain"), PAIRS)
def test_the_state_can_be_detached_in_place_between_parts_of_a_text(skimming, plain, seed):
    torch.manual_seed(0)
    inputs = torch.randn(2 * T, B, E)
    grads = []
    for detach in (torch.Tensor.detach, torch.Tensor.detach_):
        torch.manual_seed(1)
        layer, state, loss = skimming(E, D, small_size=S), None, 0.0
        for part in inputs.split(T):
            output, state = layer(part, state)
            loss = loss + output.square().sum()
            state = tuple(detach(s) for s in state) if isinstance(state, tuple) else detach(state)
        loss.backward()
        grads.append([parameter.grad for parameter in layer.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))
    with torch.no_grad():
        assert not any(s.detach_().requires_grad for s in flat(layer(inputs)[1]))


def test_a_layer_of_another_kind_is_refused():
    for skimming, layer, message in (
        (SkimLSTM, nn.GRU(E, D), r"^SkimLSTM starts from an nn\.LSTM, not from a GRU$"),
        (SkimGRU, nn.LSTM(E, D), r"^SkimGRU starts from an nn\.GRU, not from a LSTM$"),
        (SkimLSTM, nn.RNN(E, D), r"not from a RNN$"),
    ):
        with pytest.raises(TypeError, match=message):
            start_from(skimming, layer)
    with pytest.raises(ValueError, match=r"projections \(proj_size\) has no skimming counterpart"):
        start_from(SkimLSTM, nn.LSTM(E, D, proj_size=2))
