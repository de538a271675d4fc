"""The fast path on the CPU, in float32: the C++ of `cpp/` behind the signatures of `reference.py`.

Inference computes only the cell that each token's decision chose. Training runs both cells, as the relaxed model must,
forward and backward over the whole sequence, weight gradients included. A plain LSTM or GRU runs on the same code.
"""

import hashlib
import operator
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from skimrnn.errors import UserError
from skimrnn.kernels import _cpu
from skimrnn.kernels.recording import is_recorded
from skimrnn.kernels.reference import CellWeights, DecisionWeights, SkimSequence, State, as_tensor, margin_at

_SOURCES = Path(__file__).parent / "cpp"


def _digest_of(sources: Path) -> str:
    """What CMakeLists.txt has the module remember of its sources."""
    files = sorted(path for path in sources.iterdir() if path.suffix in (".cpp", ".hpp"))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def require_these_sources() -> None:
    """Refuse kernels that were built from other sources than the checkout has: they would be taken for these."""
    if _SOURCES.is_dir() and _digest_of(_SOURCES) != getattr(_cpu, "sources", None):
        raise UserError(
            f"{_SOURCES}: the kernels were built from other sources: build them anew (make, or pip install), or set "
            "SKIMRNN_KERNEL=reference"
        )


SUPPORTED_ISAS: list[str] = list(_cpu.lanes)
"""Instruction sets that were built and that this CPU has, best first."""

_GATES = {"lstm": 4, "gru": 3}
_STATES = {"lstm": 2, "gru": 1}  # (h, c) and (h,)


def isa() -> str:
    """The instruction set in use: the best supported one, or what `SKIMRNN_ISA` says."""
    name = os.environ.get("SKIMRNN_ISA") or SUPPORTED_ISAS[0]
    if name not in SUPPORTED_ISAS:
        raise UserError(f"SKIMRNN_ISA={name}: not built or not supported here (there are {', '.join(SUPPORTED_ISAS)})")
    return name


def covers(*tensors: Tensor) -> bool:
    """Whether this kernel can run on such tensors."""
    return all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors)


def skim_lstm(
    inputs: Tensor,
    lengths: Tensor,
    state: State,
    big: CellWeights,
    small: CellWeights,
    decision: DecisionWeights,
    *,
    threshold: float = 0.5,
    noise: Tensor | None = None,
    temperature: float = 1.0,
    reverse: bool = False,
) -> SkimSequence:
    """Run a Skim-LSTM: see `skimrnn.kernels.reference.skim_lstm`."""
    return _run("lstm", inputs, lengths, state, [*big, *small, *decision], threshold, noise, temperature, reverse)


def skim_gru(
    inputs: Tensor,
    lengths: Tensor,
    state: State,
    big: CellWeights,
    small: CellWeights,
    decision: DecisionWeights,
    *,
    threshold: float = 0.5,
    noise: Tensor | None = None,
    temperature: float = 1.0,
    reverse: bool = False,
) -> SkimSequence:
    """Run a Skim-GRU: see `skimrnn.kernels.reference.skim_gru`."""
    return _run("gru", inputs, lengths, state, [*big, *small, *decision], threshold, noise, temperature, reverse)


def lstm(
    inputs: Tensor, lengths: Tensor, state: State, weights: CellWeights, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Run a plain LSTM: see `skimrnn.kernels.reference.lstm`."""
    sequence = _run("lstm", inputs, lengths, state, list(weights), 0.0, None, 1.0, reverse)
    return sequence.outputs, sequence.state[0]


class Frozen:
    """A layer for inference with the weights that it has now: packed once, for any number of calls.

    `weights` are those of a plain cell, or of a skimming layer (big, small, decision). With `vectors` (V, E) the layer
    reads words, whose input projections are kept: a table of V x (4D + 4S + 1) floats, a little more for padding.
    """

    def __init__(self, cell: str, weights: Sequence[Tensor], vectors: Tensor | None = None) -> None:
        if vectors is not None and not (vectors.shape[1:] == weights[0].shape[1:] and covers(vectors)):
            raise ValueError(f"vectors must be {_wanted('V', weights[0].shape[1])}, not {_found(vectors)}")
        self._cell = cell
        self._weights = [weight.detach().clone() for weight in weights]
        self._layer = _pack(cell, self._weights)
        self._table = None
        if vectors is not None:
            vectors = vectors.detach().contiguous()
            self._table = vectors.new_empty(len(vectors), self._layer.folded_size)
            self._layer.fold(vectors.data_ptr(), len(vectors), self._table.data_ptr())

    def __call__(self, inputs: Tensor, lengths: Tensor, state: State, threshold: float = 0.5) -> SkimSequence:
        """Run over `inputs` (T, B, E), or words (T, B, int64). A plain cell reads every token."""
        if self._table is None:
            _check_shapes(self._cell, inputs, lengths, state, self._weights)
            return _infer(self._layer, self._weights, inputs, None, None, lengths, state, threshold, False)
        if inputs.dtype != torch.int64 or not inputs.is_cpu:
            raise TypeError(f"words must be (T, B) in int64 on the CPU, not {_found(inputs)}")
        _check_sequences(self._cell, inputs.shape[1], lengths, state, self._weights)
        return _infer(self._layer, self._weights, None, self._table, inputs, lengths, state, threshold, False)


def _run(
    cell: str,
    inputs: Tensor,
    lengths: Tensor,
    state: State,
    weights: list[Tensor],
    threshold: float,
    noise: Tensor | None,
    temperature: float,
    reverse: bool,
) -> SkimSequence:
    _check_shapes(cell, inputs, lengths, state, weights)
    wants_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (inputs, *state, *weights))
    recorded = is_recorded((inputs, *state, *weights))
    if noise is None and not wants_gradient and not recorded:
        return _infer(_packed(cell, weights), weights, inputs, None, None, lengths, state, threshold, reverse)
    if not recorded:
        if not covers(*weights):
            raise ValueError("weights must be in float32 on the CPU")
        _packs.pop(weights[1], None)
    if noise is not None and not (noise.shape == (*inputs.shape[:2], 2) and covers(noise)):
        raise ValueError(f"noise must be {_wanted(*inputs.shape[:2], 2)}, not {_found(noise)}")
    difference = None if noise is None else noise[..., 0] - noise[..., 1]  # (T, B)
    memory = state[1] if cell == "lstm" else None
    run = _forward if wants_gradient or noise is not None else _infer_op
    outputs, last_hidden, last_cell, log_p, read, *_ = run(
        cell,
        inputs,
        lengths,
        state[0],
        memory,
        weights,
        as_tensor(threshold, inputs),
        difference,
        as_tensor(temperature, inputs),
        reverse,
    )
    return SkimSequence(outputs, (last_hidden, last_cell) if cell == "lstm" else (last_hidden,), log_p, read)


def _check_shapes(cell: str, inputs: Tensor, lengths: Tensor, state: State, weights: Sequence[Tensor]) -> None:
    """What C++ gets by address must be what it believes it to be. The numbers in `lengths` are checked there."""
    _, batch, width = inputs.shape
    if width != weights[0].shape[1] or not covers(inputs):
        raise ValueError(f"inputs must be {_wanted('T', 'B', weights[0].shape[1])}, not {_found(inputs)}")
    _check_sequences(cell, batch, lengths, state, weights)


def _check_sequences(cell: str, batch: int, lengths: Tensor, state: State, weights: Sequence[Tensor]) -> None:
    if len(state) != _STATES[cell]:
        raise ValueError(f"the state of {cell} is {_STATES[cell]} tensors, not {len(state)}")
    wanted = (batch, weights[1].shape[1])
    for s in state:
        if s.shape != wanted or not covers(s):
            raise ValueError(f"a state must be {_wanted(*wanted)}, not {_found(s)}")
    if lengths.shape != (batch,) or lengths.dtype != torch.int64 or not lengths.is_cpu:
        raise ValueError(f"lengths must be {batch} numbers in int64 on the CPU, not {_found(lengths)}")


def _wanted(*shape: int | str) -> str:
    return f"({', '.join(map(str, shape))}) in float32 on the CPU"


def _found(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))}) in {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


# Packed weights -------------------------------------------------------------------------------------------------------


class _Packed(NamedTuple):
    layer: _cpu.Layer
    weights: list[Any]  # weak references
    state: tuple[Any, ...]  # of the weights when they were packed
    fingerprint: int


_packs: Any = WeakIdKeyDictionary()  # by the big cell's hidden weights


def _packed(cell: str, weights: Sequence[Tensor]) -> _cpu.Layer:
    """The packed weights, from the last call if they have not changed since.

    A change is seen by torch's version counter or, because fused optimisers and writes through `.data` do not move it,
    by numbers sampled from each tensor. Training forgets the pack besides.
    """
    try:
        versions = [weight._version for weight in weights]
    except RuntimeError:  # Inference tensors have no version counter.
        return _pack(cell, weights)
    addresses, sizes = [weight.data_ptr() for weight in weights], [weight.numel() for weight in weights]
    state = (isa(), versions, addresses, sizes)
    known: _Packed | None = _packs.get(weights[1])
    # Only what was packed before, and so was found to be there, is looked at by its address.
    if (
        known
        and known.state == state
        and all(map(operator.is_, (old() for old in known.weights), weights))
        and known.fingerprint == _cpu.fingerprint(addresses, sizes)
    ):
        return known.layer
    layer = _pack(cell, weights)
    if all(weight.is_contiguous() for weight in weights):
        fingerprint = _cpu.fingerprint(addresses, sizes)
        _packs[weights[1]] = _Packed(layer, [ref(weight) for weight in weights], state, fingerprint)
    return layer


def _pack(cell: str, weights: Sequence[Tensor]) -> _cpu.Layer:
    """Pack four tensors of a plain cell, or twelve of a skimming layer, for the instruction set in use."""
    arrays = [weight.detach().contiguous() for weight in weights]
    hidden_size, input_size = arrays[1].shape[1], arrays[0].shape[1]
    gates = _GATES[cell]
    small_size = len(arrays[4]) // gates if len(arrays) > 4 else 0
    if small_size > hidden_size:
        raise ValueError(f"the small cell has {small_size} units, the big one {hidden_size}: it can't have more")
    shapes: list[tuple[int, ...]] = []
    for rows in (gates * hidden_size, gates * small_size, 2)[: len(arrays) // 4]:
        shapes += [(rows, input_size), (rows, hidden_size), (rows,), (rows,)]
    for array, shape in zip(arrays, shapes, strict=True):
        if array.shape != shape or not covers(array):
            raise ValueError(f"a weight must be {_wanted(*shape)}, not {_found(array)}")
    return _cpu.layer(
        isa(), cell == "gru", input_size, hidden_size, small_size, len(arrays) > 4, [_address(a) for a in arrays]
    )


# Inference ------------------------------------------------------------------------------------------------------------


def _infer(
    layer: _cpu.Layer,
    weights: Sequence[Tensor],
    inputs: Tensor | None,
    table: Tensor | None,
    words: Tensor | None,
    lengths: Tensor,
    state: State,
    threshold: float,
    reverse: bool,
) -> SkimSequence:
    source = inputs if inputs is not None else words
    assert source is not None
    steps, batch = source.shape[:2]
    like = weights[0]
    source, lengths = source.contiguous(), lengths.contiguous()
    state = tuple([s.contiguous() for s in state])
    outputs = like.new_empty(steps, batch, state[0].shape[1])
    last = tuple([torch.empty_like(s) for s in state])
    skims = len(weights) > 4
    log_p = like.new_empty((steps, batch, 2) if skims else 0)
    read = like.new_empty((steps, batch) if skims else 0, dtype=torch.bool)
    cells = (0, 0) if len(state) == 1 else (_address(state[1]), _address(last[1]))
    layer.infer(
        _cpu.batch(
            steps,
            batch,
            0 if inputs is None else source.data_ptr(),
            _address(table),
            0 if table is None else table.shape[0],
            0 if words is None else source.data_ptr(),
            lengths.data_ptr(),
            state[0].data_ptr(),
            cells[0],
            margin_at(threshold),
            reverse,
            torch.get_num_threads(),
        ),
        _cpu.results(_address(outputs), _address(last[0]), cells[1], _address(log_p), _address(read)),
    )
    return SkimSequence(outputs, last, log_p, read)


def _operator(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function an operator of torch's.

    `torch.library.custom_op` would do, but at its first call it imports torch's compiler, which takes seconds.
    """

    def make(function: Callable[..., Any]) -> Callable[..., Any]:
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(name, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(name, "cpu", function)
        made: Callable[..., Any] = getattr(torch.ops.skimrnn, name.removeprefix("skimrnn::"))
        return made

    return make


@_operator("skimrnn::infer")
def _infer_op(
    cell: str,
    inputs: Tensor,
    lengths: Tensor,
    hidden: Tensor,
    memory: Tensor | None,
    weights: list[Tensor],
    threshold: Tensor,
    noise: Tensor | None,
    temperature: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    state = (hidden,) if memory is None else (hidden, memory)
    sequence = _infer(_pack(cell, weights), weights, inputs, None, None, lengths, state, threshold.item(), reverse)
    last = sequence.state
    return (
        sequence.outputs,
        last[0],
        last[1] if len(last) > 1 else hidden.new_empty(0),
        sequence.log_probabilities,
        sequence.read,
    )


def _fake_results(
    inputs: Tensor, hidden: Tensor, memory: Tensor | None, weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    steps, batch, _ = inputs.shape
    skims = len(weights) > 4
    return (
        inputs.new_empty(steps, batch, hidden.shape[1]),
        inputs.new_empty(hidden.shape),
        inputs.new_empty(0 if memory is None else hidden.shape),
        inputs.new_empty((steps, batch, 2) if skims else 0),
        inputs.new_empty((steps, batch) if skims else 0, dtype=torch.bool),
    )


@torch.library.register_fake("skimrnn::infer")  # type: ignore[untyped-decorator]
def _(
    cell: str,
    inputs: Tensor,
    lengths: Tensor,
    hidden: Tensor,
    memory: Tensor | None,
    weights: list[Tensor],
    threshold: Tensor,
    noise: Tensor | None,
    temperature: Tensor,
    reverse: bool,
) -> tuple[Tensor, ...]:
    return _fake_results(inputs, hidden, memory, weights)


# Training -------------------------------------------------------------------------------------------------------------


@_operator("skimrnn::forward")
def _forward(
    cell: str,
    inputs: Tensor,
    lengths: Tensor,
    hidden: Tensor,
    memory: Tensor | None,
    weights: list[Tensor],
    threshold: Tensor,
    noise: Tensor | None,
    temperature: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs, last h, last c, log-probabilities, decisions; and for the way back the gates and the memory cells."""
    *results, gates, cells = (torch.empty_like(t) for t in _fake_forward(cell, inputs, hidden, memory, weights))
    layer = _pack(cell, weights)
    noise = None if noise is None else noise.contiguous()
    arrays = [None if t is None else t.contiguous() for t in (inputs, lengths, hidden, memory)]
    layer.forward(
        _batch(inputs.shape, arrays, threshold.item(), reverse),
        _cpu.results(*map(_address, results)),
        _cpu.tape(_address(noise), temperature.item(), _address(gates), _address(cells)),
    )
    return (*results, gates, cells)  # type: ignore[return-value]


@torch.library.register_fake("skimrnn::forward")  # type: ignore[untyped-decorator]
def _(
    cell: str,
    inputs: Tensor,
    lengths: Tensor,
    hidden: Tensor,
    memory: Tensor | None,
    weights: list[Tensor],
    threshold: Tensor,
    noise: Tensor | None,
    temperature: Tensor,
    reverse: bool,
) -> tuple[Tensor, ...]:
    return _fake_forward(cell, inputs, hidden, memory, weights)


def _fake_forward(
    cell: str, inputs: Tensor, hidden: Tensor, memory: Tensor | None, weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Results, and room for the rows of gates (panels of both cells, one vector for the decision) and for the cells."""
    row_size, padded = _row_sizes(cell, weights)
    return (
        *_fake_results(inputs, hidden, memory, weights),
        inputs.new_empty(*inputs.shape[:2], row_size),
        inputs.new_empty((*inputs.shape[:2], padded) if memory is not None else 0),
    )


def _row_sizes(cell: str, weights: Sequence[Tensor]) -> tuple[int, int]:
    """Floats in a row of gates, which tells the instruction set, too, and in one of cells."""
    lanes, gates = _cpu.lanes[isa()], _GATES[cell]
    padded, small = (-(-len(w) // gates // lanes) * lanes for w in (weights[1], weights[5 if len(weights) > 4 else 1]))
    return 4 * padded + (4 * small if len(weights) > 4 else 0) + lanes, padded


@_operator("skimrnn::backward")
def _backward(
    cell: str,
    wants_inputs: bool,
    inputs: Tensor,
    lengths: Tensor,
    hidden: Tensor,
    memory: Tensor | None,
    weights: list[Tensor],
    relaxed: bool,
    temperature: Tensor,
    reverse: bool,
    outputs: Tensor,
    log_p: Tensor,
    gates: Tensor,
    cells: Tensor,
    d_outputs: Tensor | None,
    d_hidden: Tensor | None,
    d_cell: Tensor | None,
    d_log_p: Tensor | None,
) -> list[Tensor]:
    """Gradients of inputs (empty where not wanted), h_0, c_0 (empty for a GRU) and weights."""
    if gates.shape[2] != _row_sizes(cell, weights)[0]:
        raise RuntimeError("the way back runs on other instructions than the way there: leave SKIMRNN_ISA as it is")
    results = [torch.empty_like(t) for t in _fake_backward(wants_inputs, inputs, hidden, memory, weights)]
    layer = _pack(cell, weights)
    arrays = [None if t is None else t.contiguous() for t in (inputs, lengths, hidden, memory)]
    given = [None if t is None else t.contiguous() for t in (d_outputs, d_hidden, d_cell, d_log_p)]
    outputs = outputs.contiguous()
    addresses = [_address(t) for t in results]
    layer.backward(
        _batch(outputs.shape, arrays, 0.5, reverse),
        _cpu.results(_address(outputs), 0, 0, _address(log_p), 0),
        _cpu.tape(_address(gates if relaxed else None), temperature.item(), _address(gates), _address(cells)),
        _cpu.gradients(
            _address(given[0]),
            _address(given[1]),
            _address(given[2]),
            _address(given[3]),
            addresses[0] if wants_inputs else 0,
            addresses[1],
            addresses[2],
            addresses[3:],
        ),
    )
    return results


def _fake_backward(
    wants_inputs: bool, inputs: Tensor, hidden: Tensor, memory: Tensor | None, weights: Sequence[Tensor]
) -> list[Tensor]:
    return [
        inputs.new_empty(inputs.shape if wants_inputs else 0),
        hidden.new_empty(hidden.shape),
        hidden.new_empty(0 if memory is None else hidden.shape),
        *(weight.new_empty(weight.shape) for weight in weights),
    ]


@torch.library.register_fake("skimrnn::backward")  # type: ignore[untyped-decorator]
def _(
    cell: str,
    wants_inputs: bool,
    inputs: Tensor,
    lengths: Tensor,
    hidden: Tensor,
    memory: Tensor | None,
    weights: list[Tensor],
    relaxed: bool,
    temperature: Tensor,
    reverse: bool,
    outputs: Tensor,
    log_p: Tensor,
    gates: Tensor,
    cells: Tensor,
    d_outputs: Tensor | None,
    d_hidden: Tensor | None,
    d_cell: Tensor | None,
    d_log_p: Tensor | None,
) -> list[Tensor]:
    return _fake_backward(wants_inputs, inputs, hidden, memory, weights)


def _batch(shape: torch.Size, arrays: Sequence[Tensor | None], threshold: float, reverse: bool) -> _cpu.Batch:
    """A batch of `shape` (T, B, ...) from inputs, lengths, h_0 and c_0."""
    inputs, lengths, hidden, memory = map(_address, arrays)
    return _cpu.batch(
        shape[0],
        shape[1],
        inputs,
        0,
        0,
        0,
        lengths,
        hidden,
        memory,
        margin_at(threshold),
        reverse,
        torch.get_num_threads(),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cell, xs, lengths, hidden, memory, weights, _, noise, temperature, reverse = inputs
    outputs, _, _, log_p, read, gates, cells = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(read, gates, cells)
    ctx.save_for_backward(xs, lengths, hidden, memory, temperature, outputs, log_p, gates, cells, *weights)
    ctx.cell, ctx.relaxed, ctx.reverse = cell, noise is not None, reverse


def _differentiate(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
    inputs, lengths, hidden, memory, temperature, outputs, log_p, gates, cells, *weights = ctx.saved_tensors
    if ctx.cell == "gru":
        gradients = (*gradients[:2], None, *gradients[3:])  # There is no c.
    d_inputs, d_hidden, d_memory, *d_weights = _backward(
        ctx.cell,
        ctx.needs_input_grad[1],
        inputs,
        lengths,
        hidden,
        memory,
        weights,
        ctx.relaxed,
        temperature,
        ctx.reverse,
        outputs,
        log_p,
        gates,
        cells,
        *gradients[:4],
    )
    return (
        None,
        d_inputs if ctx.needs_input_grad[1] else None,
        None,
        d_hidden,
        d_memory if memory is not None else None,
        d_weights,
        None,
        None,
        None,
        None,
    )


def _differentiate_again(ctx: Any, *gradients: Any) -> None:
    raise RuntimeError("the CPU kernels compute first derivatives alone: set SKIMRNN_KERNEL=reference for second ones")


torch.library.register_autograd("skimrnn::forward", _differentiate, setup_context=_save)
torch.library.register_autograd("skimrnn::backward", _differentiate_again)
