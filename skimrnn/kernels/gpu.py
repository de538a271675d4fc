"""The fast path on a GPU, in float32 and Triton: LSTM and Skim-LSTM behind the signature of `reference.py`.

Every tensor may carry a leading dimension of models (N): both directions of a layer, or several models (seeds, gammas)
that train together, run in one launch. A whole sequence is one launch forward and one backward: a program takes one
model and a tile of 16 sequences, loops over time, and keeps h and c in registers. Input projections before, and the
gradients of weights and inputs after, are one large matrix product each, left to torch.

Why so, for an H100: a step of d = 100 multiplies (16, 100) by (100, 440), too little to share among SMs, and programs
that share nothing need no synchronisation. The 176 KB of hidden weights do not fit the registers beside the state, but
unpadded they fit the 256 KB of L1 that an SM has: each step loads them again in chunks of 32 KB and finds them there
(at d = 200, in L2). What a chunk gives is written to memory and read back by unit, which is how gates, small gates and
the margin come out of one loop over rows without padding each. A product wants 16 rows at least, so that one model
with 32 sequences occupies 2 of 132 SMs: what fills a GPU is many models together. Products are true float32: compiled
for sm_90, TF32 three times over, which is as exact, takes as many registers (all of them in the way back).

Under Triton's interpreter (`TRITON_INTERPRET=1`) the same code runs on CPU tensors, slowly.
"""
# Types are Triton's own inside a kernel, and its constants are in capitals.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: N803

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from skimrnn.kernels.reference import CellWeights, DecisionWeights, SkimSequence, State, in_order, reorder, reversal

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton interprets kernels, on the CPU, as it does for its own tests."""

_TILE = 16  # sequences of a program: the least that a matrix product takes
_DECISION_ROWS = 4  # the margin of the decision and three rows of zeros, so that rows of gates stay aligned


def covers(*tensors: Tensor) -> bool:
    """Whether this kernel can run on such tensors."""
    device = "cpu" if INTERPRETED else "cuda"
    return all(tensor.dtype == torch.float32 and tensor.device.type == device for tensor in tensors)


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
    temperature: float | Tensor = 1.0,
    reverse: bool = False,
) -> SkimSequence:
    """Run a Skim-LSTM: see `skimrnn.kernels.reference.skim_lstm`.

    With a leading dimension of models on every tensor, N Skim-LSTMs run in one launch: inputs (N, T, B, E), lengths
    (N, B), state and weights likewise, and `temperature` may be (N); `reverse` is for one alone.
    """
    if reverse:
        order = reversal(lengths, len(inputs))
        ordered = skim_lstm(
            reorder(inputs, order),
            lengths,
            state,
            big,
            small,
            decision,
            threshold=threshold,
            noise=None if noise is None else reorder(noise, order),
            temperature=temperature,
        )
        return in_order(ordered, order)
    if inputs.dim() == 3:
        one = skim_lstm(
            inputs[None],
            lengths[None],
            tuple(s[None] for s in state),
            CellWeights(*(weight[None] for weight in big)),
            CellWeights(*(weight[None] for weight in small)),
            DecisionWeights(*(weight[None] for weight in decision)),
            threshold=threshold,
            noise=None if noise is None else noise[None],
            temperature=temperature,
        )
        return SkimSequence(one.outputs[0], tuple(s[0] for s in one.state), one.log_probabilities[0], one.read[0])
    margins = [_margin_rows(weight) for weight in decision]
    stacked = [torch.cat(parts, dim=1) for parts in zip(big, small, margins, strict=True)]
    gumbel = None if noise is None else noise[..., 0] - noise[..., 1]  # (N, T, B): only the difference counts
    outputs, hidden, cell, log_p, read = _run(
        inputs, lengths, state, CellWeights(*stacked), small.input.shape[1] // 4, True, threshold, gumbel, temperature
    )
    return SkimSequence(outputs, (hidden, cell), log_p, read)


def lstm(
    inputs: Tensor, lengths: Tensor, state: State, weights: CellWeights, *, reverse: bool = False
) -> tuple[Tensor, State]:
    """Run a plain LSTM over `inputs` (T, B, E), or several with a leading dimension: outputs and the last (h, c)."""
    if reverse:
        order = reversal(lengths, len(inputs))
        outputs, last = lstm(reorder(inputs, order), lengths, state, weights)
        return reorder(outputs, order), last
    if inputs.dim() == 3:
        weights = CellWeights(*(weight[None] for weight in weights))
        outputs, last = lstm(inputs[None], lengths[None], tuple(s[None] for s in state), weights)
        return outputs[0], tuple(s[0] for s in last)
    outputs, hidden, cell, _, _ = _run(inputs, lengths, state, weights, 0, False, 0.0, None, 1.0)
    return outputs, (hidden, cell)


def _margin_rows(weight: Tensor) -> Tensor:
    """What gives the margin logit(read) - logit(skim), from weights (N, 2, ...): (N, 4, ...), rows past it zero."""
    margin = weight[:, :1] - weight[:, 1:]
    return torch.cat([margin, margin.new_zeros(len(margin), _DECISION_ROWS - 1, *margin.shape[2:])], dim=1)


def _run(
    inputs: Tensor,
    lengths: Tensor,
    state: State,
    weights: CellWeights,
    small_size: int,
    skims: bool,
    threshold: float,
    noise: Tensor | None,
    temperature: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    models, steps, batch, width = inputs.shape
    hidden, cell = (s.contiguous() for s in state)
    assert hidden.shape == cell.shape == (models, batch, weights.hidden.shape[2]), (inputs.shape, hidden.shape)
    assert lengths.shape == (models, batch), (inputs.shape, lengths.shape)
    bias = (weights.input_bias + weights.hidden_bias)[:, None]  # (N, 1, R)
    projected = torch.baddbmm(bias, inputs.reshape(models, -1, width), weights.input.transpose(1, 2))
    if not isinstance(temperature, Tensor):
        temperature = inputs.new_full((models,), temperature)
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (projected, hidden, weights.hidden))
    outputs, last_hidden, last_cell, log_p, read, *_ = _forward(
        projected.view(models, steps, batch, -1),
        lengths.to(inputs.device).contiguous(),
        hidden,
        cell,
        weights.hidden.contiguous(),
        None if noise is None else noise.contiguous(),
        temperature.to(inputs),
        small_size,
        skims,
        threshold,
        needs_gradient,
    )
    return outputs, last_hidden, last_cell, log_p, read


# Kernels --------------------------------------------------------------------------------------------------------------


@triton.jit
def _tanh(x):  # Triton's own is not in its interpreter.
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit  # type: ignore[untyped-decorator]
def _forward_kernel(
    projected,  # (N, T, B, R): gates of the big cell, of the small one, margin
    lengths,  # (N, B)
    first_hidden,  # (N, B, D)
    first_cell,
    weights,  # (N, R, D)
    noise,  # (N, T, B)
    temperature,  # (N)
    outputs,  # (N, T, B, D)
    last_hidden,
    last_cell,
    log_p,  # (N, T, B, 2)
    read,  # (N, T, B)
    tape,  # (N, T, B, R): activated gates, and the share of reading; (N, B, R) where nothing is kept
    cells,  # (N, T, B, D)
    steps,
    batch,
    threshold,
    HIDDEN: tl.constexpr,
    SMALL: tl.constexpr,
    PADDED: tl.constexpr,
    ROW: tl.constexpr,
    CHUNK: tl.constexpr,
    SKIMS: tl.constexpr,
    RELAXED: tl.constexpr,
    KEEPS: tl.constexpr,
    TILE: tl.constexpr,
):
    model = tl.program_id(1).to(tl.int64)
    # From here on all places are counted from the model's own, so that they fit 32 bits.
    lengths += model * batch
    first_hidden += model * batch * HIDDEN
    first_cell += model * batch * HIDDEN
    last_hidden += model * batch * HIDDEN
    last_cell += model * batch * HIDDEN
    weights += model * ROW * HIDDEN
    projected += model * steps * batch * ROW
    outputs += model * steps * batch * HIDDEN
    cells += model * steps * batch * HIDDEN
    noise += model * steps * batch
    log_p += model * steps * batch * 2
    read += model * steps * batch
    tape += model * (steps * batch if KEEPS else batch) * ROW
    sequences = tl.program_id(0) * TILE + tl.arange(0, TILE)
    units = tl.arange(0, PADDED)
    exists = sequences < batch
    length = tl.load(lengths + sequences, mask=exists, other=0).to(tl.int32)
    state_mask = exists[:, None] & (units[None, :] < HIDDEN)
    state_place = sequences[:, None] * HIDDEN + units[None, :]
    hidden = tl.load(first_hidden + state_place, mask=state_mask, other=0.0)
    cell = tl.load(first_cell + state_place, mask=state_mask, other=0.0)
    if RELAXED:
        sharpness = 1.0 / tl.load(temperature + model)

    for step in range(tl.max(length)):
        token = step * batch + sequences
        real = step < length
        mask = real[:, None] & (units[None, :] < HIDDEN)
        slot = token if KEEPS else sequences
        # What all gates get from the state goes through the tape: there each is found again by its unit.
        for first in range(0, ROW, CHUNK):
            rows = first + tl.arange(0, CHUNK)
            matrix = tl.load(
                weights + rows[None, :] * HIDDEN + units[:, None],
                mask=(rows[None, :] < ROW) & (units[:, None] < HIDDEN),
                other=0.0,
            )
            chunk_mask = real[:, None] & (rows[None, :] < ROW)
            gates = tl.load(projected + token[:, None] * ROW + rows[None, :], mask=chunk_mask, other=0.0)
            gates += tl.dot(hidden, matrix, input_precision="ieee")
            tl.store(tape + slot[:, None] * ROW + rows[None, :], gates, mask=chunk_mask)
        tl.debug_barrier()

        place = tape + slot[:, None] * ROW + units[None, :]
        gate_i = tl.sigmoid(tl.load(place, mask=mask, other=0.0))
        gate_f = tl.sigmoid(tl.load(place + HIDDEN, mask=mask, other=0.0))
        gate_g = _tanh(tl.load(place + 2 * HIDDEN, mask=mask, other=0.0))
        gate_o = tl.sigmoid(tl.load(place + 3 * HIDDEN, mask=mask, other=0.0))
        new_cell = gate_f * cell + gate_i * gate_g
        new_hidden = gate_o * _tanh(new_cell)
        if KEEPS:
            tl.store(place, gate_i, mask=mask)
            tl.store(place + HIDDEN, gate_f, mask=mask)
            tl.store(place + 2 * HIDDEN, gate_g, mask=mask)
            tl.store(place + 3 * HIDDEN, gate_o, mask=mask)

        if SKIMS:
            skim_hidden = hidden
            skim_cell = cell
            if SMALL > 0:
                updated = real[:, None] & (units[None, :] < SMALL)
                place += 4 * HIDDEN
                small_i = tl.sigmoid(tl.load(place, mask=updated, other=0.0))
                small_f = tl.sigmoid(tl.load(place + SMALL, mask=updated, other=0.0))
                small_g = _tanh(tl.load(place + 2 * SMALL, mask=updated, other=0.0))
                small_o = tl.sigmoid(tl.load(place + 3 * SMALL, mask=updated, other=0.0))
                small_cell = small_f * cell + small_i * small_g
                skim_hidden = tl.where(updated, small_o * _tanh(small_cell), hidden)
                skim_cell = tl.where(updated, small_cell, cell)
                if KEEPS:
                    tl.store(place, small_i, mask=updated)
                    tl.store(place + SMALL, small_f, mask=updated)
                    tl.store(place + 2 * SMALL, small_g, mask=updated)
                    tl.store(place + 3 * SMALL, small_o, mask=updated)
            margin_place = tape + slot * ROW + 4 * (HIDDEN + SMALL)
            margin = tl.load(margin_place, mask=real, other=0.0)
            log_read = tl.minimum(margin, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(margin)))
            tl.store(log_p + 2 * token, log_read, mask=real)
            tl.store(log_p + 2 * token + 1, log_read - margin, mask=real)
            reads = tl.sigmoid(margin) > threshold
            tl.store(read + token, reads, mask=real)
            if RELAXED:
                share = tl.sigmoid((margin + tl.load(noise + token, mask=real, other=0.0)) * sharpness)
                new_hidden = skim_hidden + share[:, None] * (new_hidden - skim_hidden)
                new_cell = skim_cell + share[:, None] * (new_cell - skim_cell)
            else:
                share = tl.where(reads, 1.0, 0.0)
                new_hidden = tl.where(reads[:, None], new_hidden, skim_hidden)
                new_cell = tl.where(reads[:, None], new_cell, skim_cell)
            if KEEPS:
                tl.store(margin_place, share, mask=real)

        hidden = tl.where(mask, new_hidden, hidden)
        cell = tl.where(mask, new_cell, cell)
        tl.store(outputs + token[:, None] * HIDDEN + units[None, :], hidden, mask=mask)
        if KEEPS:
            tl.store(cells + token[:, None] * HIDDEN + units[None, :], cell, mask=mask)
        else:
            tl.debug_barrier()  # The next step writes where this one reads.

    tl.store(last_hidden + state_place, hidden, mask=state_mask)
    tl.store(last_cell + state_place, cell, mask=state_mask)


@triton.jit  # type: ignore[untyped-decorator]
def _backward_kernel(
    lengths,
    first_hidden,
    first_cell,
    weights,
    temperature,
    outputs,
    log_p,
    tape,
    cells,
    d_outputs,  # (N, T, B, D)
    d_last_hidden,  # (N, B, D)
    d_last_cell,
    d_log_p,  # (N, T, B, 2)
    d_projected,  # (N, T, B, R)
    d_first_hidden,
    d_first_cell,
    steps,
    batch,
    HIDDEN: tl.constexpr,
    SMALL: tl.constexpr,
    PADDED: tl.constexpr,
    ROW: tl.constexpr,
    CHUNK: tl.constexpr,
    SKIMS: tl.constexpr,
    RELAXED: tl.constexpr,
    TILE: tl.constexpr,
):
    model = tl.program_id(1).to(tl.int64)
    lengths += model * batch
    first_hidden += model * batch * HIDDEN
    first_cell += model * batch * HIDDEN
    d_last_hidden += model * batch * HIDDEN
    d_last_cell += model * batch * HIDDEN
    d_first_hidden += model * batch * HIDDEN
    d_first_cell += model * batch * HIDDEN
    weights += model * ROW * HIDDEN
    outputs += model * steps * batch * HIDDEN
    d_outputs += model * steps * batch * HIDDEN
    cells += model * steps * batch * HIDDEN
    log_p += model * steps * batch * 2
    d_log_p += model * steps * batch * 2
    tape += model * steps * batch * ROW
    d_projected += model * steps * batch * ROW
    sequences = tl.program_id(0) * TILE + tl.arange(0, TILE)
    units = tl.arange(0, PADDED)
    exists = sequences < batch
    length = tl.load(lengths + sequences, mask=exists, other=0).to(tl.int32)
    state_mask = exists[:, None] & (units[None, :] < HIDDEN)
    state_place = sequences[:, None] * HIDDEN + units[None, :]
    d_hidden = tl.load(d_last_hidden + state_place, mask=state_mask, other=0.0)
    d_cell = tl.load(d_last_cell + state_place, mask=state_mask, other=0.0)
    if RELAXED:
        sharpness = 1.0 / tl.load(temperature + model)

    longest = tl.max(length)
    for back in range(longest):
        step = longest - 1 - back
        token = step * batch + sequences
        real = step < length
        mask = real[:, None] & (units[None, :] < HIDDEN)
        place = token[:, None] * ROW + units[None, :]
        gate_i = tl.load(tape + place, mask=mask, other=0.0)
        gate_f = tl.load(tape + place + HIDDEN, mask=mask, other=0.0)
        gate_g = tl.load(tape + place + 2 * HIDDEN, mask=mask, other=0.0)
        gate_o = tl.load(tape + place + 3 * HIDDEN, mask=mask, other=0.0)
        history = (token[:, None] - batch) * HIDDEN + units[None, :]  # of the step before
        if step > 0:
            old_cell = tl.load(cells + history, mask=mask, other=0.0)
        else:
            old_cell = tl.load(first_cell + state_place, mask=mask, other=0.0)
        d_read_hidden = d_hidden + tl.load(d_outputs + token[:, None] * HIDDEN + units[None, :], mask=mask, other=0.0)
        d_read_cell = d_cell
        d_old_hidden = tl.zeros((TILE, PADDED), tl.float32)
        d_old_cell = tl.zeros((TILE, PADDED), tl.float32)
        read_cell = gate_f * old_cell + gate_i * gate_g
        squashed = _tanh(read_cell)

        if SKIMS:
            share = tl.load(tape + token * ROW + 4 * (HIDDEN + SMALL), mask=real, other=0.0)
            if step > 0:
                old_hidden = tl.load(outputs + history, mask=mask, other=0.0)
            else:
                old_hidden = tl.load(first_hidden + state_place, mask=mask, other=0.0)
            d_new_hidden = d_read_hidden
            d_new_cell = d_read_cell
            d_read_hidden = share[:, None] * d_new_hidden
            d_read_cell = share[:, None] * d_new_cell
            d_old_hidden = d_new_hidden - d_read_hidden
            d_old_cell = d_new_cell - d_read_cell
            skim_hidden = old_hidden
            skim_cell = old_cell
            if SMALL > 0:
                updated = real[:, None] & (units[None, :] < SMALL)
                small_place = place + 4 * HIDDEN
                small_i = tl.load(tape + small_place, mask=updated, other=0.0)
                small_f = tl.load(tape + small_place + SMALL, mask=updated, other=0.0)
                small_g = tl.load(tape + small_place + 2 * SMALL, mask=updated, other=0.0)
                small_o = tl.load(tape + small_place + 3 * SMALL, mask=updated, other=0.0)
                small_cell = small_f * old_cell + small_i * small_g
                small_squashed = _tanh(small_cell)
                skim_hidden = tl.where(updated, small_o * small_squashed, old_hidden)
                skim_cell = tl.where(updated, small_cell, old_cell)
                d_small_cell = d_old_cell + d_old_hidden * small_o * (1.0 - small_squashed * small_squashed)
                d_place = d_projected + small_place
                tl.store(d_place, d_small_cell * small_g * small_i * (1.0 - small_i), mask=updated)
                tl.store(d_place + SMALL, d_small_cell * old_cell * small_f * (1.0 - small_f), mask=updated)
                tl.store(d_place + 2 * SMALL, d_small_cell * small_i * (1.0 - small_g * small_g), mask=updated)
                tl.store(d_place + 3 * SMALL, d_old_hidden * small_squashed * small_o * (1.0 - small_o), mask=updated)
                d_old_hidden = tl.where(updated, 0.0, d_old_hidden)
                d_old_cell = tl.where(updated, d_small_cell * small_f, d_old_cell)
            log_read = tl.load(log_p + 2 * token, mask=real, other=0.0)
            log_skim = tl.load(log_p + 2 * token + 1, mask=real, other=0.0)
            d_margin = tl.load(d_log_p + 2 * token, mask=real, other=0.0) * tl.exp(log_skim)
            d_margin -= tl.load(d_log_p + 2 * token + 1, mask=real, other=0.0) * tl.exp(log_read)
            if RELAXED:
                gain = d_new_hidden * (gate_o * squashed - skim_hidden) + d_new_cell * (read_cell - skim_cell)
                d_margin += tl.sum(gain, axis=1) * share * (1.0 - share) * sharpness
            tl.store(d_projected + token * ROW + 4 * (HIDDEN + SMALL), d_margin, mask=real)

        d_read_cell += d_read_hidden * gate_o * (1.0 - squashed * squashed)
        d_place = d_projected + place
        tl.store(d_place, d_read_cell * gate_g * gate_i * (1.0 - gate_i), mask=mask)
        tl.store(d_place + HIDDEN, d_read_cell * old_cell * gate_f * (1.0 - gate_f), mask=mask)
        tl.store(d_place + 2 * HIDDEN, d_read_cell * gate_i * (1.0 - gate_g * gate_g), mask=mask)
        tl.store(d_place + 3 * HIDDEN, d_read_hidden * squashed * gate_o * (1.0 - gate_o), mask=mask)
        tl.debug_barrier()

        # One product for all gates, which are found in memory again, row by row of the weights.
        for first in range(0, ROW, CHUNK):
            rows = first + tl.arange(0, CHUNK)
            matrix = tl.load(
                weights + rows[:, None] * HIDDEN + units[None, :],
                mask=(rows[:, None] < ROW) & (units[None, :] < HIDDEN),
                other=0.0,
            )
            d_gates = tl.load(
                d_projected + token[:, None] * ROW + rows[None, :],
                mask=real[:, None] & (rows[None, :] < ROW),
                other=0.0,
            )
            d_old_hidden = tl.dot(d_gates, matrix, d_old_hidden, input_precision="ieee")
        d_hidden = tl.where(mask, d_old_hidden, d_hidden)
        d_cell = tl.where(mask, d_old_cell + d_read_cell * gate_f, d_cell)

    tl.store(d_first_hidden + state_place, d_hidden, mask=state_mask)
    tl.store(d_first_cell + state_place, d_cell, mask=state_mask)


# Operators ------------------------------------------------------------------------------------------------------------


def _sizes(hidden: Tensor, small_size: int) -> dict[str, int]:
    """The sizes that a kernel is compiled for, and its warps."""
    size = hidden.shape[2]
    padded = max(16, triton.next_power_of_2(size))
    return {
        "HIDDEN": size,
        "SMALL": small_size,
        "PADDED": padded,
        "CHUNK": min(64, max(16, 8192 // padded)),  # 32 KiB of weights at a time
        "num_warps": 4 if padded < 128 else 8,
        "num_stages": 1,
    }


def _grid(lengths: Tensor) -> tuple[int, int]:
    models, batch = lengths.shape
    return triton.cdiv(batch, _TILE), models


@torch.library.custom_op("skimrnn::gpu_forward", mutates_args=())
def _forward(
    projected: Tensor,
    lengths: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weights: Tensor,
    noise: Tensor | None,
    temperature: Tensor,
    small_size: int,
    skims: bool,
    threshold: float,
    keeps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs, last h, last c, log-probabilities, decisions; and for the way back the gates and the memory cells."""
    results = tuple(torch.zeros_like(t) for t in _results(projected, hidden, skims, keeps))
    outputs, last_hidden, last_cell, log_p, read, tape, cells = results
    _forward_kernel[_grid(lengths)](
        projected,
        lengths,
        hidden,
        cell,
        weights,
        noise if noise is not None else projected,
        temperature,
        outputs,
        last_hidden,
        last_cell,
        log_p,
        read,
        tape,
        cells,
        projected.shape[1],
        projected.shape[2],
        threshold,
        ROW=projected.shape[3],
        SKIMS=skims,
        RELAXED=noise is not None,
        KEEPS=keeps,
        TILE=_TILE,
        **_sizes(hidden, small_size),
    )
    return results  # type: ignore[return-value]


def _results(projected: Tensor, hidden: Tensor, skims: bool, keeps: bool) -> tuple[Tensor, ...]:
    models, steps, batch, row = projected.shape
    tokens, size = (models, steps, batch), hidden.shape[2]
    return (
        projected.new_empty(*tokens, size),
        torch.empty_like(hidden),
        torch.empty_like(hidden),
        projected.new_empty((*tokens, 2) if skims else 0),
        projected.new_empty(tokens if skims else 0, dtype=torch.bool),
        projected.new_empty(*tokens, row) if keeps else projected.new_empty(models, batch, row),
        projected.new_empty((*tokens, size) if keeps else 0),
    )


@_forward.register_fake
def _(
    projected: Tensor,
    lengths: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weights: Tensor,
    noise: Tensor | None,
    temperature: Tensor,
    small_size: int,
    skims: bool,
    threshold: float,
    keeps: bool,
) -> tuple[Tensor, ...]:
    return _results(projected, hidden, skims, keeps)


@torch.library.custom_op("skimrnn::gpu_backward", mutates_args=())
def _backward(
    lengths: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weights: Tensor,
    temperature: Tensor,
    small_size: int,
    skims: bool,
    relaxed: bool,
    outputs: Tensor,
    log_p: Tensor,
    tape: Tensor,
    cells: Tensor,
    d_outputs: Tensor,
    d_hidden: Tensor,
    d_cell: Tensor,
    d_log_p: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the projections (N, T, B, R), of h_0 and of c_0."""
    d_projected = torch.zeros_like(tape)
    d_first_hidden, d_first_cell = torch.empty_like(hidden), torch.empty_like(cell)
    _backward_kernel[_grid(lengths)](
        lengths,
        hidden,
        cell,
        weights,
        temperature,
        outputs,
        log_p,
        tape,
        cells,
        d_outputs.contiguous(),
        d_hidden.contiguous(),
        d_cell.contiguous(),
        d_log_p.contiguous(),
        d_projected,
        d_first_hidden,
        d_first_cell,
        tape.shape[1],
        tape.shape[2],
        ROW=tape.shape[3],
        SKIMS=skims,
        RELAXED=relaxed,
        TILE=_TILE,
        **_sizes(hidden, small_size),
    )
    return d_projected, d_first_hidden, d_first_cell


@_backward.register_fake
def _(
    lengths: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weights: Tensor,
    temperature: Tensor,
    small_size: int,
    skims: bool,
    relaxed: bool,
    outputs: Tensor,
    log_p: Tensor,
    tape: Tensor,
    cells: Tensor,
    d_outputs: Tensor,
    d_hidden: Tensor,
    d_cell: Tensor,
    d_log_p: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(tape), torch.empty_like(hidden), torch.empty_like(cell)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, lengths, hidden, cell, weights, noise, temperature, small_size, skims, _, _ = inputs
    outputs, _, _, log_p, read, tape, cells = output
    ctx.mark_non_differentiable(read, tape, cells)
    ctx.save_for_backward(lengths, hidden, cell, weights, temperature, outputs, log_p, tape, cells)
    ctx.small_size, ctx.skims, ctx.relaxed = small_size, skims, noise is not None


def _differentiate(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    lengths, hidden, cell, weights, temperature, outputs, log_p, tape, cells = ctx.saved_tensors
    d_projected, d_hidden, d_cell = _backward(
        lengths,
        hidden,
        cell,
        weights,
        temperature,
        ctx.small_size,
        ctx.skims,
        ctx.relaxed,
        outputs,
        log_p,
        tape,
        cells,
        *gradients[:4],
    )
    before = torch.cat([hidden[:, None], outputs[:, :-1]], dim=1)  # h_{t-1}: (N, T, B, D)
    d_weights = d_projected.flatten(1, 2).transpose(1, 2) @ before.flatten(1, 2)  # (N, R, D)
    return d_projected, None, d_hidden, d_cell, d_weights, None, None, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
