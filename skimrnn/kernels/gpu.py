"""The fast path on a GPU, in float32 and Triton: LSTM and Skim-LSTM behind the signature of `reference.py`.

Every tensor may carry a leading dimension of models (N): both directions of a layer, or several models (seeds, gammas)
that train together, run in one launch. A whole sequence is one launch forward and one backward: a program takes one
sequence of one model, loops over its tokens, and keeps h and c in registers. Input projections before, and the
gradients of weights and inputs after, are one large matrix product each, left to torch.

Why so, for an H100: a step of d = 100 multiplies (100) by (100, 448), too little to share among SMs, and programs that
share nothing need no synchronisation. What a step costs is its latency, and the 179 KB of hidden weights, which do not
fit the registers, but unpadded they fit the 256 KB of L1 that an SM has and are found there (at d = 200, in L2).
Sequences side by side in a program, as matrix units would have them, were slower up to some 600 of them. Rows of gates
lie unit by unit (i, f, g, o of the first, then of the second), so that the four gates of a unit are one access of 16
bytes and one thread's, which keeps that unit's h and c, too. What a thread needs of others, all of h, the small cell's
gates and the margin, goes through memory: a step has two barriers forward and three backward.

Under Triton's interpreter (`TRITON_INTERPRET=1`) the same code runs on CPU tensors, slowly.
"""
# Types are Triton's own inside a kernel, and its constants are in capitals.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: N803, N806

import math
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from skimrnn.kernels.recording import is_recorded
from skimrnn.kernels.reference import (
    CellWeights,
    DecisionWeights,
    SkimSequence,
    State,
    in_order,
    margin_at,
    reorder,
    reversal,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton interprets kernels, on the CPU, as it does for its own tests."""

_LINE = 32  # Numbers of a line of the cache. Rows of gates are as many as fill whole lines, the last ones zero.


def start_driver() -> None:
    """Have Triton build what it launches kernels with, which it else does at the first launch."""
    triton.runtime.driver.active  # noqa: B018


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
    weights = [*big, *small, *decision]
    outputs, hidden, cell, log_p, read = _run(inputs, lengths, state, weights, threshold, noise, temperature)
    return SkimSequence(outputs, (hidden, cell), log_p, read)


def lstm(
    inputs: Tensor, lengths: Tensor, state: State, weights: CellWeights, *, reverse: bool = False
) -> tuple[Tensor, State]:
    """Run a plain LSTM over `inputs` (T, B, E), or several with a leading dimension: outputs and the last (h, c)."""
    if reverse:
        order = reversal(lengths, len(inputs))
        outputs, last = lstm(reorder(inputs, order), lengths, state, weights)
        return reorder(outputs, order), last
    outputs, hidden, cell, _, _ = _run(inputs, lengths, state, [*weights], 0.0, None, 1.0)
    return outputs, (hidden, cell)


def _run(
    inputs: Tensor,
    lengths: Tensor,
    state: State,
    weights: list[Tensor],
    threshold: float,
    noise: Tensor | None,
    temperature: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    models, batch = inputs.shape[:-3], inputs.shape[-2]  # Of a single model, all tensors lack the first dimension.
    hidden, cell = (s.contiguous() for s in state)
    assert hidden.shape == cell.shape == (*models, batch, weights[1].shape[-1]), (inputs.shape, hidden.shape)
    assert lengths.shape == (*models, batch), (inputs.shape, lengths.shape)
    if math.prod(inputs.shape[-3:-1]) * _row_size(weights) >= 1 << 31:  # Places in a model's rows of gates.
        raise ValueError(f"{inputs.shape[-3]} steps of {batch} sequences are too many for one launch: split the batch")
    if not isinstance(temperature, Tensor):
        temperature = inputs.new_full(models, temperature)
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (inputs, hidden, cell, *weights))
    lengths, temperature = lengths.to(inputs.device).contiguous(), temperature.to(inputs).expand(models).contiguous()
    noise, limit = None if noise is None else noise.contiguous(), margin_at(threshold)
    if is_recorded((inputs, hidden, cell, *weights)):
        results = _forward(inputs, lengths, hidden, cell, weights, noise, temperature, limit, needs_gradient)
    elif needs_gradient:
        results = _Sequence.apply(inputs, lengths, hidden, cell, noise, temperature, limit, *weights)
    else:
        results = _launch_forward(inputs, lengths, hidden, cell, weights, noise, temperature, limit, False)
    outputs, last_hidden, last_cell, log_p, read, *_ = results
    return outputs, last_hidden, last_cell, log_p, read


# Kernels --------------------------------------------------------------------------------------------------------------


@triton.jit
def _tanh(x):  # Triton's own is not in its interpreter.
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit  # type: ignore[untyped-decorator]
def _gates(rows, PADDED: tl.constexpr):
    """The gates i, f, g, o (P) of rows that lie unit by unit (4 P)."""
    i_and_g, f_and_o = tl.split(tl.reshape(rows, (PADDED, 2, 2)))
    i, g = tl.split(i_and_g)
    f, o = tl.split(f_and_o)
    return i, f, g, o


@triton.jit  # type: ignore[untyped-decorator]
def _activated(rows, PADDED: tl.constexpr):
    """The gates i, f, g, o of rows, after their activation."""
    i, f, g, o = _gates(rows, PADDED)
    return tl.sigmoid(i), tl.sigmoid(f), _tanh(g), tl.sigmoid(o)


@triton.jit  # type: ignore[untyped-decorator]
def _rows(i, f, g, o, PADDED: tl.constexpr):
    """The way back of `_gates`."""
    return tl.reshape(tl.join(tl.join(i, g), tl.join(f, o)), (4 * PADDED,))


@triton.jit  # type: ignore[untyped-decorator]
def _place(total, batch, by_sm, SMS: tl.constexpr):
    """The model and the sequence of a program, and whether there is one.

    Programs are taken to be dealt to the SMs (`SMS` of them) in turns, which CUDA does not promise, and which holds no
    longer once there are more than an SM has room for: speed alone depends on it. Those that an SM gets, `by_sm` of
    them, are neighbours here, of one model if they can be: its weights are then in that SM's L1 once.
    """
    program = tl.program_id(0)
    place = program % SMS * by_sm + program // SMS
    return (place // batch).to(tl.int64), place % batch, place < total


@triton.jit  # type: ignore[untyped-decorator]
def _product(left, matrix, columns, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, AT_ONCE: tl.constexpr):
    """Values times a matrix (`HEIGHT`, `WIDTH`), both in memory, at some of its columns; zero beyond its width."""
    inside = columns < WIDTH
    # Those beyond read the first one instead: a mask would have registers set to zero for each load. That columns lie
    # side by side is said here since it no longer shows; where the matrix is not aligned, they are loaded one by one.
    columns = tl.max_contiguous(tl.multiple_of(tl.where(inside, columns, 0), 4), 4)
    total = tl.zeros(columns.shape, tl.float32)
    UNROLLED: tl.constexpr = HEIGHT if HEIGHT < 64 * AT_ONCE else 64 * AT_ONCE  # More takes minutes to compile.
    for start in range(0, HEIGHT, UNROLLED):
        for first in tl.static_range(0, UNROLLED, AT_ONCE):
            lines = start + first + tl.arange(0, AT_ONCE)
            left_values = tl.load(left + lines, mask=lines < HEIGHT, other=0.0)
            places = matrix + lines[:, None] * WIDTH + columns[None, :]
            values = tl.load(places, mask=(lines < HEIGHT)[:, None], other=0.0)
            total += tl.sum(left_values[:, None] * values, axis=0)
    return tl.where(inside, total, 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _gate_rows(d_hidden, d_cell, i, f, g, o, old_cell, squashed, PADDED: tl.constexpr):
    """Rows of the gradients of gates before their activation, from those of the new h and c; `squashed` is tanh(c)."""
    return _rows(
        d_cell * g * i * (1.0 - i),
        d_cell * old_cell * f * (1.0 - f),
        d_cell * i * (1.0 - g * g),
        d_hidden * squashed * o * (1.0 - o),
        PADDED,
    )


@triton.jit(do_not_specialize=["steps", "batch", "total", "by_sm"])  # type: ignore[untyped-decorator]
def _forward_kernel(
    projected,  # (N, T, B, R): gates of the big cell, of the small one, margin; the state's part is added in place
    lengths,  # (N, B)
    first_hidden,  # (N, B, D)
    first_cell,
    weights,  # (N, D, R)
    noise,  # (N, T, B, 2)
    temperature,  # (N)
    outputs,  # (N, T, B, D)
    last_hidden,
    last_cell,
    log_p,  # (N, T, B, 2)
    read,  # (N, T, B)
    tape,  # (N, T, B, R): activated gates, and the share of reading
    cells,  # (N, T, B, D)
    steps,
    batch,
    total,  # N B
    by_sm,
    limit,  # of the margin: above it a token is read
    SMS: tl.constexpr,
    HIDDEN: tl.constexpr,
    SMALL: tl.constexpr,
    PADDED: tl.constexpr,
    AT_ONCE: tl.constexpr,
    ROW: tl.constexpr,
    SKIMS: tl.constexpr,
    RELAXED: tl.constexpr,
    KEEPS: tl.constexpr,
):
    model, sequence, exists = _place(total, batch, by_sm, SMS)
    if not exists:
        return
    # From here on all places are counted from the model's own, so that they fit 32 bits.
    weights += model * ROW * HIDDEN
    projected += model * steps * batch * ROW
    outputs += model * steps * batch * HIDDEN
    cells += model * steps * batch * HIDDEN
    noise += model * steps * batch * 2
    log_p += model * steps * batch * 2
    read += model * steps * batch
    tape += model * steps * batch * ROW
    units = tl.arange(0, PADDED)
    rows = tl.arange(0, 4 * PADDED)
    is_unit = units < HIDDEN
    is_small = units < SMALL
    is_row = rows < ROW
    is_big_row = rows < 4 * HIDDEN
    is_small_row = rows < 4 * SMALL  # of the small cell's own
    state = (model * batch + sequence) * HIDDEN
    hidden = tl.load(first_hidden + state + units, mask=is_unit, other=0.0)
    cell = tl.load(first_cell + state + units, mask=is_unit, other=0.0)
    before = first_hidden + state  # where the state lies in memory
    if RELAXED:
        sharpness = 1.0 / tl.load(temperature + model)

    length = tl.load(lengths + model * batch + sequence).to(tl.int32)
    next_gates = tl.load(projected + sequence * ROW + rows, mask=is_row, other=0.0)
    if RELAXED:
        next_gumbel = tl.load(noise + 2 * sequence) - tl.load(noise + 2 * sequence + 1)
    for step in range(length):
        token = step * batch + sequence
        row = token * ROW
        gates = next_gates + _product(before, weights, rows, HIDDEN, ROW, AT_ONCE)
        # What the next step adds has a step's time to arrive.
        is_next = step + 1 < length
        next_gates = tl.load(projected + row + batch * ROW + rows, mask=is_row & is_next, other=0.0)
        if RELAXED:
            gumbel = next_gumbel
            gumbel_read = tl.load(noise + 2 * (token + batch), mask=is_next, other=0.0)
            next_gumbel = gumbel_read - tl.load(noise + 2 * (token + batch) + 1, mask=is_next, other=0.0)
        if SKIMS:  # The small cell's gates and the margin go through memory from the threads that summed them.
            tl.store(projected + row + rows, gates, mask=is_row & (rows >= 4 * HIDDEN))

        gate_i, gate_f, gate_g, gate_o = _activated(gates, PADDED)
        new_cell = gate_f * cell + gate_i * gate_g
        new_hidden = gate_o * _tanh(new_cell)
        if KEEPS:
            tl.store(tape + row + rows, _rows(gate_i, gate_f, gate_g, gate_o, PADDED), mask=is_big_row)

        if SKIMS:
            tl.debug_barrier()
            margin = tl.load(projected + row + 4 * (HIDDEN + SMALL))
            skim_hidden = hidden
            skim_cell = cell
            if SMALL > 0:
                small = tl.load(projected + row + 4 * HIDDEN + rows, mask=is_small_row, other=0.0)
                small_i, small_f, small_g, small_o = _activated(small, PADDED)
                small_cell = small_f * cell + small_i * small_g
                skim_cell = tl.where(is_small, small_cell, cell)
                skim_hidden = tl.where(is_small, small_o * _tanh(small_cell), hidden)
                if KEEPS:
                    small = _rows(small_i, small_f, small_g, small_o, PADDED)
                    tl.store(tape + row + 4 * HIDDEN + rows, small, mask=is_small_row)
            log_read = tl.minimum(margin, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(margin)))
            tl.store(log_p + 2 * token, log_read)
            tl.store(log_p + 2 * token + 1, log_read - margin)
            reads = margin > limit
            tl.store(read + token, reads)
            if RELAXED:
                share = tl.sigmoid((margin + gumbel) * sharpness)
                new_hidden = skim_hidden + share * (new_hidden - skim_hidden)
                new_cell = skim_cell + share * (new_cell - skim_cell)
            else:
                share = tl.where(reads, 1.0, 0.0)
                new_hidden = tl.where(reads, new_hidden, skim_hidden)
                new_cell = tl.where(reads, new_cell, skim_cell)
            if KEEPS:
                tl.store(tape + row + 4 * (HIDDEN + SMALL), share)

        hidden = new_hidden
        cell = new_cell
        before = outputs + token * HIDDEN
        tl.store(before + units, hidden, mask=is_unit)
        if KEEPS:
            tl.store(cells + token * HIDDEN + units, cell, mask=is_unit)
        tl.debug_barrier()  # The next step reads the state from memory.

    tl.store(last_hidden + state + units, hidden, mask=is_unit)
    tl.store(last_cell + state + units, cell, mask=is_unit)


# Weights that are loaded one by one, not by fours, leave each thread the sums of the unit that it keeps.
@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["steps", "batch", "total", "by_sm"], do_not_specialize_on_alignment=["weights"]
)
def _backward_kernel(
    lengths,
    first_hidden,
    first_cell,
    weights,  # (N, R, D)
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
    total,
    by_sm,
    SMS: tl.constexpr,
    HIDDEN: tl.constexpr,
    SMALL: tl.constexpr,
    PADDED: tl.constexpr,
    AT_ONCE: tl.constexpr,
    ROW: tl.constexpr,
    SKIMS: tl.constexpr,
    RELAXED: tl.constexpr,
):
    model, sequence, exists = _place(total, batch, by_sm, SMS)
    if not exists:
        return
    weights += model * ROW * HIDDEN
    outputs += model * steps * batch * HIDDEN
    d_outputs += model * steps * batch * HIDDEN
    cells += model * steps * batch * HIDDEN
    log_p += model * steps * batch * 2
    d_log_p += model * steps * batch * 2
    tape += model * steps * batch * ROW
    d_projected += model * steps * batch * ROW
    units = tl.arange(0, PADDED)
    rows = tl.arange(0, 4 * PADDED)
    is_unit = units < HIDDEN
    is_small = units < SMALL
    is_big_row = rows < 4 * HIDDEN
    is_small_row = rows < 4 * SMALL
    state = (model * batch + sequence) * HIDDEN
    d_hidden = tl.load(d_last_hidden + state + units, mask=is_unit, other=0.0)
    d_cell = tl.load(d_last_cell + state + units, mask=is_unit, other=0.0)
    if RELAXED:
        sharpness = 1.0 / tl.load(temperature + model)

    length = tl.load(lengths + model * batch + sequence).to(tl.int32)
    for back in range(length):
        step = length - 1 - back
        token = step * batch + sequence
        row = token * ROW
        gate_i, gate_f, gate_g, gate_o = _gates(tl.load(tape + row + rows, mask=is_big_row, other=0.0), PADDED)
        old_cells = cells + (token - batch) * HIDDEN  # Where the cells and states of the step before lie.
        old_states = outputs + (token - batch) * HIDDEN
        if step == 0:
            old_cells = first_cell + state
            old_states = first_hidden + state
        old_cell = tl.load(old_cells + units, mask=is_unit, other=0.0)
        d_new_hidden = d_hidden + tl.load(d_outputs + token * HIDDEN + units, mask=is_unit, other=0.0)
        read_cell = gate_f * old_cell + gate_i * gate_g
        squashed = _tanh(read_cell)
        d_read_hidden = d_new_hidden
        d_read_cell = d_cell
        d_old_hidden = tl.zeros((PADDED,), tl.float32)
        d_old_cell = tl.zeros((PADDED,), tl.float32)

        if SKIMS:
            share = tl.load(tape + row + 4 * (HIDDEN + SMALL))
            rest = 1.0 - share
            d_read_hidden = share * d_new_hidden
            d_read_cell = share * d_cell
            d_skim_hidden = rest * d_new_hidden
            d_skim_cell = rest * d_cell
            skim_hidden = tl.load(old_states + units, mask=is_unit, other=0.0)
            skim_cell = old_cell
            d_old_hidden = tl.where(is_small, 0.0, d_skim_hidden)  # What the small cell leaves as it is.
            d_old_cell = tl.where(is_small, 0.0, d_skim_cell)
            if SMALL > 0:
                small = tl.load(tape + row + 4 * HIDDEN + rows, mask=is_small_row, other=0.0)
                small_i, small_f, small_g, small_o = _gates(small, PADDED)
                small_cell = small_f * old_cell + small_i * small_g
                small_squashed = _tanh(small_cell)
                skim_hidden = tl.where(is_small, small_o * small_squashed, skim_hidden)
                skim_cell = tl.where(is_small, small_cell, skim_cell)
                d_small_cell = d_skim_cell + d_skim_hidden * small_o * (1.0 - small_squashed * small_squashed)
                d_small = _gate_rows(
                    d_skim_hidden,
                    d_small_cell,
                    small_i,
                    small_f,
                    small_g,
                    small_o,
                    old_cell,
                    small_squashed,
                    PADDED,
                )
                tl.store(d_projected + row + 4 * HIDDEN + rows, d_small, mask=is_small_row)
                d_old_cell += tl.where(is_small, d_small_cell * small_f, 0.0)
            d_margin = tl.load(d_log_p + 2 * token) * tl.exp(tl.load(log_p + 2 * token + 1))
            d_margin -= tl.load(d_log_p + 2 * token + 1) * tl.exp(tl.load(log_p + 2 * token))
            if RELAXED:
                d_share = d_new_hidden * (gate_o * squashed - skim_hidden) + d_cell * (read_cell - skim_cell)
                d_margin += tl.sum(d_share) * share * rest * sharpness
            tl.store(d_projected + row + 4 * (HIDDEN + SMALL), d_margin)

        d_read_cell += d_read_hidden * gate_o * (1.0 - squashed * squashed)
        d_gates = _gate_rows(d_read_hidden, d_read_cell, gate_i, gate_f, gate_g, gate_o, old_cell, squashed, PADDED)
        tl.store(d_projected + row + rows, d_gates, mask=is_big_row)
        tl.debug_barrier()  # All gradients of gates are found in memory again.
        d_hidden = d_old_hidden + _product(d_projected + row, weights, units, ROW, HIDDEN, AT_ONCE)
        d_cell = d_old_cell + d_read_cell * gate_f

    tl.store(d_first_hidden + state + units, d_hidden, mask=is_unit)
    tl.store(d_first_cell + state + units, d_cell, mask=is_unit)


# Calls ----------------------------------------------------------------------------------------------------------------
#
# Each way is one node of autograd: on a GPU a training step costs less than the launches of what could be nodes of its
# own. What records calls sees an operator, whose dispatch takes a third of a call's time on the host.


def _pack(weights: Sequence[Tensor]) -> Tensor:
    """One matrix (N, R, E + D + 1) for inputs, state and bias, its rows in the order of the kernels.

    A cell's rows lie gate after gate, and are laid unit after unit. The decision's two become that of the margin
    logit(read) - logit(skim). Behind it are rows of zeros.
    """
    parts = [
        torch.cat([by_input, by_hidden, (input_bias + hidden_bias)[..., None]], dim=-1)
        for by_input, by_hidden, input_bias, hidden_bias in zip(*(weights[n::4] for n in range(4)), strict=True)
    ]
    rows = [part.unflatten(-2, (4, -1)).transpose(-3, -2).flatten(-3, -2) for part in parts[:2]]
    if len(parts) > 2:
        rows.append(parts[2][..., :1, :] - parts[2][..., 1:, :])
    height = sum(part.shape[-2] for part in rows)
    rows.append(rows[0].new_zeros(*rows[0].shape[:-2], _row_size(weights) - height, rows[0].shape[-1]))
    return torch.cat(rows, dim=-2)


def _unpack(rows: Tensor, width: int, size: int, small_size: int, skims: bool) -> list[Tensor]:
    """Gradients of the weights from that of what `_pack` makes of them."""
    ends = (4 * size, 4 * (size + small_size)) if skims else (4 * size,)
    cells = [rows[..., first:last, :] for first, last in zip((0, *ends), ends, strict=False)]
    parts = [cell.unflatten(-2, (-1, 4)).transpose(-3, -2).flatten(-3, -2) for cell in cells]
    if skims:
        margin = rows[..., ends[-1] : ends[-1] + 1, :]
        parts.append(torch.cat([margin, -margin], dim=-2))
    bias = width + size
    return [
        gradient
        for part in parts
        for gradient in (part[..., :width], part[..., width:bias], part[..., bias], part[..., bias])
    ]


def _sizes(size: int, small_size: int, row: int, units: int) -> dict[str, int]:
    """The sizes that a kernel is compiled for, and its warps: a thread for each of its units."""
    padded = triton.next_power_of_2(units)
    return {
        "HIDDEN": size,
        "SMALL": small_size,
        "ROW": row,
        "PADDED": padded,
        "AT_ONCE": max(min(16, 4096 // padded), 1),  # Lines of a matrix, for which a thread has the registers.
        "num_warps": min(max(padded // 32, 1), 32),
        "num_stages": 1,
    }


def _matmul(left: Tensor, right: Tensor) -> Tensor:
    """A product in float32, under autocast, too."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right


@cache
def _count_sms(device: torch.device) -> int:
    return 3 if INTERPRETED else torch.cuda.get_device_properties(device).multi_processor_count


def _dealing(total: int, device: torch.device) -> tuple[tuple[int], dict[str, int]]:
    """The grid of so many programs, and what they need to know of it: see `_place`."""
    sms = _count_sms(device)
    by_sm = -(-total // sms)
    return (total if by_sm == 1 else sms * by_sm,), {"total": total, "by_sm": by_sm, "SMS": sms}


def _launch_forward(
    inputs: Tensor,
    lengths: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weights: list[Tensor],
    noise: Tensor | None,
    temperature: Tensor,
    limit: float,
    keeps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs, last h, last c, log-probabilities, decisions; and for the way back gates, memory cells and rows.

    `weights` are the four of a plain cell, or those of the big cell, the small one and the decision.
    """
    (steps, batch, width), rows = inputs.shape[-3:], _pack(weights)
    input_rows, hidden_rows, bias = rows[..., :width], rows[..., width:-1].contiguous(), rows[..., -1]
    projected = _matmul(inputs.flatten(-3, -2), input_rows.mT) + bias[..., None, :]
    results = _results(inputs, hidden, weights, keeps)
    outputs, last_hidden, last_cell, log_p, read, tape, cells = results
    if batch == 0:
        return (*results, rows, hidden_rows)  # type: ignore[return-value]
    with torch.cuda.device_of(inputs):  # Triton launches on the current one.
        grid, dealt = _dealing(math.prod(inputs.shape[:-3]) * batch, inputs.device)
        _forward_kernel[grid](
            projected,
            lengths,
            hidden,
            cell,
            hidden_rows.mT.contiguous(),
            noise if noise is not None else projected,
            temperature,
            outputs,
            last_hidden,
            last_cell,
            log_p,
            read,
            tape,
            cells,
            steps,
            batch,
            limit=limit,
            SKIMS=len(weights) > 4,
            RELAXED=noise is not None,
            KEEPS=keeps,
            **dealt,
            **_sizes(hidden.shape[-1], _small_size(weights), rows.shape[-2], rows.shape[-2] // 4),
        )
    return (*results, rows, hidden_rows)  # type: ignore[return-value]


_forward = torch.library.custom_op("skimrnn::gpu_forward", _launch_forward, mutates_args=())


def _small_size(weights: Sequence[Tensor]) -> int:
    return weights[4].shape[-2] // 4 if len(weights) > 4 else 0


def _results(inputs: Tensor, hidden: Tensor, weights: Sequence[Tensor], keeps: bool) -> tuple[Tensor, ...]:
    """What the forward kernel fills; past each sequence's length zeros stay, but on the tape, where nothing looks."""
    skims, tokens = len(weights) > 4, inputs.shape[:-1]
    return (
        inputs.new_zeros(*tokens, hidden.shape[-1]),
        torch.empty_like(hidden),
        torch.empty_like(hidden),
        inputs.new_zeros((*tokens, 2) if skims else 0),
        inputs.new_zeros(tokens if skims else 0, dtype=torch.bool),
        inputs.new_empty((*tokens, _row_size(weights)) if keeps else 0),
        inputs.new_empty((*tokens, hidden.shape[-1]) if keeps else 0),
    )


def _row_size(weights: Sequence[Tensor]) -> int:
    """Places of a row of gates: those of the big cell, of the small one, the margin, and up to a whole line."""
    used = sum(weight.shape[-2] for weight in weights[0:8:4]) + (len(weights) > 4)
    return -(-used // _LINE) * _LINE


@_forward.register_fake
def _(
    inputs: Tensor,
    lengths: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weights: list[Tensor],
    noise: Tensor | None,
    temperature: Tensor,
    limit: float,
    keeps: bool,
) -> tuple[Tensor, ...]:
    models, size, width = inputs.shape[:-3], hidden.shape[-1], inputs.shape[-1]
    rows = [inputs.new_empty(*models, _row_size(weights), columns) for columns in (width + size + 1, size)]
    return (*_results(inputs, hidden, weights, keeps), *rows)


def _launch_backward(
    lengths: Tensor,
    hidden: Tensor,
    cell: Tensor,
    hidden_rows: Tensor,
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
    """Gradients of the projections ((N,) T, B, R), of h_0 and of c_0."""
    d_projected = torch.zeros_like(tape)
    d_first_hidden, d_first_cell = torch.empty_like(hidden), torch.empty_like(cell)
    steps, batch, row = tape.shape[-3:]
    if batch == 0:
        return d_projected, d_first_hidden, d_first_cell
    with torch.cuda.device_of(hidden):
        grid, dealt = _dealing(math.prod(tape.shape[:-3]) * batch, hidden.device)
        _backward_kernel[grid](
            lengths,
            hidden,
            cell,
            hidden_rows,
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
            steps,
            batch,
            SKIMS=skims,
            RELAXED=relaxed,
            **dealt,
            **_sizes(hidden.shape[-1], small_size, row, hidden.shape[-1]),
        )
    return d_projected, d_first_hidden, d_first_cell


_backward = torch.library.custom_op("skimrnn::gpu_backward", _launch_backward, mutates_args=())


@_backward.register_fake
def _(
    lengths: Tensor,
    hidden: Tensor,
    cell: Tensor,
    hidden_rows: Tensor,
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
    values, lengths, hidden, cell, weights, noise, temperature, _, _ = inputs
    ctx.set_materialize_grads(False)  # What has no gradient would get zeros as large as it is.
    outputs, _, _, log_p, read, tape, cells, rows, hidden_rows = output
    ctx.mark_non_differentiable(read, tape, cells, rows, hidden_rows)
    ctx.save_for_backward(values, lengths, hidden, cell, temperature, outputs, log_p, tape, cells, rows, hidden_rows)
    ctx.small_size, ctx.skims, ctx.relaxed = _small_size(weights), len(weights) > 4, noise is not None


def _differentiate(
    ctx: Any, *gradients: Tensor | None, backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = _backward
) -> tuple[Any, ...]:
    inputs, lengths, hidden, cell, temperature, outputs, log_p, tape, cells, rows, hidden_rows = ctx.saved_tensors
    given = [
        torch.zeros_like(value) if gradient is None else gradient
        for gradient, value in zip(gradients, (outputs, hidden, cell, log_p), strict=False)
    ]
    d_projected, d_hidden, d_cell = backward(
        lengths,
        hidden,
        cell,
        hidden_rows,
        temperature,
        ctx.small_size,
        ctx.skims,
        ctx.relaxed,
        outputs,
        log_p,
        tape,
        cells,
        *given,
    )
    by_token, width = d_projected.flatten(-3, -2), inputs.shape[-1]  # (N, T B, R)
    d_inputs = _matmul(by_token, rows[..., :width]).view_as(inputs) if ctx.needs_input_grad[0] else None
    before = torch.cat([hidden.unsqueeze(-3), outputs[..., :-1, :, :]], dim=-3)  # h_{t-1}: (N, T, B, D)
    ones = inputs.new_ones(1).expand(*inputs.shape[:-1], 1)
    factors = torch.cat([inputs, before, ones], dim=-1).flatten(-3, -2)  # (N, T B, E + D + 1)
    d_weights = _unpack(_matmul(by_token.mT, factors), width, hidden.shape[-1], ctx.small_size, ctx.skims)
    return d_inputs, None, d_hidden, d_cell, d_weights, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


class _Sequence(torch.autograd.Function):
    """The same without an operator."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        lengths: Tensor,
        hidden: Tensor,
        cell: Tensor,
        noise: Tensor | None,
        temperature: Tensor,
        limit: float,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        arguments = (inputs, lengths, hidden, cell, list(weights), noise, temperature, limit, True)
        results = _launch_forward(*arguments)
        _save(ctx, arguments, results)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        d_inputs, _, d_hidden, d_cell, d_weights, *_ = _differentiate(ctx, *gradients, backward=_launch_backward)
        return d_inputs, None, d_hidden, d_cell, None, None, None, *d_weights
