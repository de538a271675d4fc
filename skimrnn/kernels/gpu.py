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
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

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

_LINE = 32  # Numbers of a line of the cache. Rows of gates are as many as fill whole lines.

# Registers of a thread. Left alone the compiler takes fewer, and keeps few loads on their way: at d = 100 and T = 400
# the way back took 2.8 ms then, and 1.2 with these, of 64, 96, 128, 168 and 255 the fastest for one model and for ten
# (H200).
_REGISTERS = 96

_COUNTS = ["models", "steps", "batch", "lines", "sms"]  # A kernel is not compiled for each anew.


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
        order = reversal(lengths, inputs.shape[-3])
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
) -> tuple[Tensor, Tensor]:
    """Run a plain LSTM, or several with a leading dimension: see `skimrnn.kernels.reference.lstm`."""
    if reverse:
        order = reversal(lengths, inputs.shape[-3])
        outputs, last = lstm(reorder(inputs, order), lengths, state, weights)
        return reorder(outputs, order), last
    outputs, last, *_ = _run(inputs, lengths, state, [*weights], 0.0, None, 1.0)
    return outputs, last


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
    if not isinstance(temperature, Tensor):
        temperature = inputs.new_ones(models) * temperature  # Not `new_full`: see `as_tensor`.
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
def _place(taken, models, batch, sms, PADDED: tl.constexpr, TOGETHER: tl.constexpr, INTERPRETED: tl.constexpr):
    """The model and the sequence of a program, of which there are as many as sequences of all models.

    CUDA deals programs to SMs as it likes. A program takes a sequence of the model that its SM (of `sms`) is for, while
    there is one (`taken` counts them), and else of the next model: the weights of few models are then in an SM's L1.
    """
    if TOGETHER:
        if INTERPRETED:
            sm = tl.program_id(0) % sms
        else:  # The largest of what its threads see, should it move to another meanwhile: all of them need the same.
            units = tl.arange(0, PADDED)
            seen = tl.inline_asm_elementwise("mov.u32 $0, %smid;", "=r,r", [units], tl.int32, is_pure=False, pack=1)
            sm = tl.max(seen)
        model = sm * models // sms % models
        sequence = tl.atomic_add(taken + model, 1)
        while sequence >= batch:
            model = (model + 1) % models
            sequence = tl.atomic_add(taken + model, 1)
    else:
        model = 0
        sequence = tl.program_id(0)
    return tl.cast(model, tl.int64), sequence


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


@triton.jit(do_not_specialize=_COUNTS)  # type: ignore[untyped-decorator]
def _forward_kernel(
    projected,  # (N, T, B, R): gates of the big cell, of the small one, logits; the state's part is added in place
    lengths,  # (N, B)
    first_hidden,  # (N, B, D)
    first_cell,
    weights,  # (N, D, R), `lines` R from one model to the next
    noise,  # (N, T, B, 2)
    temperature,  # (N)
    outputs,  # (N, T, B, D)
    last_hidden,
    last_cell,
    log_p,  # (N, T, B, 2)
    read,  # (N, T, B)
    tape,  # (N, T, B, R): activated gates, and the share of reading
    states,  # (N, T, B, D): h before each token
    cells,  # (N, T, B, D): c before each token
    taken,  # (N): sequences of each model that a program has taken
    models,
    steps,
    batch,
    lines,
    sms,
    limit,  # of the margin logit(read) - logit(skim): above it, or where it is NaN, a token is read
    HIDDEN: tl.constexpr,
    SMALL: tl.constexpr,
    PADDED: tl.constexpr,
    AT_ONCE: tl.constexpr,
    ROW: tl.constexpr,
    SKIMS: tl.constexpr,
    RELAXED: tl.constexpr,
    KEEPS: tl.constexpr,
    TOGETHER: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    model, sequence = _place(taken, models, batch, sms, PADDED, TOGETHER, INTERPRETED)
    # From here on all places are counted from the model's own, so that they fit 32 bits.
    weights += model * lines * ROW
    projected += model * steps * batch * ROW
    outputs += model * steps * batch * HIDDEN
    states += model * steps * batch * HIDDEN
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
        # Each thread's own, though it has it: all lines of h are then on their way at once, as they would not be when
        # the product comes to them one after another.
        hidden = tl.load(before + units, mask=is_unit, other=0.0)
        gates = next_gates + _product(before, weights, rows, HIDDEN, ROW, AT_ONCE)
        # What the next step adds has a step's time to arrive.
        is_next = step + 1 < length
        next_gates = tl.load(projected + row + batch * ROW + rows, mask=is_row & is_next, other=0.0)
        if RELAXED:
            gumbel = next_gumbel
            gumbel_read = tl.load(noise + 2 * (token + batch), mask=is_next, other=0.0)
            next_gumbel = gumbel_read - tl.load(noise + 2 * (token + batch) + 1, mask=is_next, other=0.0)
        if KEEPS:
            tl.store(states + token * HIDDEN + units, hidden, mask=is_unit)
            tl.store(cells + token * HIDDEN + units, cell, mask=is_unit)
        if SKIMS:  # The small cell's gates and the logits go through memory from the threads that summed them.
            tl.store(projected + row + rows, gates, mask=is_row & (rows >= 4 * HIDDEN))

        gate_i, gate_f, gate_g, gate_o = _activated(gates, PADDED)
        new_cell = gate_f * cell + gate_i * gate_g
        new_hidden = gate_o * _tanh(new_cell)
        if KEEPS:
            tl.store(tape + row + rows, _rows(gate_i, gate_f, gate_g, gate_o, PADDED), mask=is_big_row)

        if SKIMS:
            tl.debug_barrier()
            logits = projected + row + 4 * (HIDDEN + SMALL)
            margin = tl.load(logits) - tl.load(logits + 1)
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
            reads = (margin > limit) | (margin != margin)  # NaN is read, and so spreads as in a plain layer.
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
        tl.debug_barrier()  # The next step reads the state from memory.

    nothing = tl.zeros((PADDED,), tl.float32)
    for step in range(length, steps):
        token = step * batch + sequence
        tl.store(outputs + token * HIDDEN + units, nothing, mask=is_unit)
        if KEEPS:
            tl.store(states + token * HIDDEN + units, nothing, mask=is_unit)
        if SKIMS:
            tl.store(log_p + 2 * token, 0.0)
            tl.store(log_p + 2 * token + 1, 0.0)
            tl.store(read + token, False)
    tl.store(last_hidden + state + units, hidden, mask=is_unit)
    tl.store(last_cell + state + units, cell, mask=is_unit)


@triton.jit  # type: ignore[untyped-decorator]
def _kept(
    tape,
    states,
    cells,
    log_p,
    d_outputs,
    d_log_p,
    token,
    exists,
    given,
    HIDDEN: tl.constexpr,
    SMALL: tl.constexpr,
    PADDED: tl.constexpr,
    ROW: tl.constexpr,
    SKIMS: tl.constexpr,
):
    """What the way back needs of a token, all of it asked for at once: zeros if the token does not exist."""
    units = tl.arange(0, PADDED)
    rows = tl.arange(0, 4 * PADDED)
    row = token * ROW
    is_unit = (units < HIDDEN) & exists
    gates = tl.load(tape + row + rows, mask=(rows < 4 * HIDDEN) & exists, other=0.0)
    cell = tl.load(cells + token * HIDDEN + units, mask=is_unit, other=0.0)
    d_output = tl.load(d_outputs + token * HIDDEN + units, mask=is_unit & (given % 2 == 1), other=0.0)
    small = gates
    hidden = cell
    share = 1.0
    read_log_p = 0.0
    skim_log_p = 0.0
    d_read_log_p = 0.0
    d_skim_log_p = 0.0
    if SKIMS:
        has_log_p = exists & (given // 8 == 1)
        hidden = tl.load(states + token * HIDDEN + units, mask=is_unit, other=0.0)
        share = tl.load(tape + row + 4 * (HIDDEN + SMALL), mask=exists, other=0.0)
        read_log_p = tl.load(log_p + 2 * token, mask=exists, other=0.0)
        skim_log_p = tl.load(log_p + 2 * token + 1, mask=exists, other=0.0)
        d_read_log_p = tl.load(d_log_p + 2 * token, mask=has_log_p, other=0.0)
        d_skim_log_p = tl.load(d_log_p + 2 * token + 1, mask=has_log_p, other=0.0)
        if SMALL > 0:
            small = tl.load(tape + row + 4 * HIDDEN + rows, mask=(rows < 4 * SMALL) & exists, other=0.0)
    return gates, cell, d_output, small, hidden, share, read_log_p, skim_log_p, d_read_log_p, d_skim_log_p


# Weights that are loaded one by one, not by fours, leave each thread the sums of the unit that it keeps.
@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=[*_COUNTS, "given"], do_not_specialize_on_alignment=["weights"]
)
def _backward_kernel(
    lengths,
    weights,  # (N, R, D), `lines` R from one model to the next
    temperature,
    log_p,
    tape,
    states,
    cells,
    d_outputs,  # (N, T, B, D)
    d_last_hidden,  # (N, B, D)
    d_last_cell,
    d_log_p,  # (N, T, B, 2)
    d_projected,  # (N, T, B, R)
    d_first_hidden,
    d_first_cell,
    taken,  # (N): sequences of each model that a program has taken
    models,
    steps,
    batch,
    lines,
    sms,
    given,  # which of the four gradients there are, a bit each
    HIDDEN: tl.constexpr,
    SMALL: tl.constexpr,
    PADDED: tl.constexpr,
    AT_ONCE: tl.constexpr,
    ROW: tl.constexpr,
    USED: tl.constexpr,
    LINE: tl.constexpr,
    SKIMS: tl.constexpr,
    RELAXED: tl.constexpr,
    TOGETHER: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    model, sequence = _place(taken, models, batch, sms, PADDED, TOGETHER, INTERPRETED)
    weights += model * lines * ROW
    states += model * steps * batch * HIDDEN
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
    rest_of_row = USED + tl.arange(0, LINE)
    state = (model * batch + sequence) * HIDDEN
    d_hidden = tl.load(d_last_hidden + state + units, mask=is_unit & (given // 2 % 2 == 1), other=0.0)
    d_cell = tl.load(d_last_cell + state + units, mask=is_unit & (given // 4 % 2 == 1), other=0.0)
    if RELAXED:
        sharpness = 1.0 / tl.load(temperature + model)

    length = tl.load(lengths + model * batch + sequence).to(tl.int32)
    token = (length - 1) * batch + sequence
    kept = _kept(
        tape, states, cells, log_p, d_outputs, d_log_p, token, length > 0, given, HIDDEN, SMALL, PADDED, ROW, SKIMS
    )
    for back in range(length):
        row = token * ROW
        gates, old_cell, d_output, small, old_hidden, share, read_log_p, skim_log_p, d_read_log_p, d_skim_log_p = kept
        gate_i, gate_f, gate_g, gate_o = _gates(gates, PADDED)
        d_new_hidden = d_hidden + d_output
        read_cell = gate_f * old_cell + gate_i * gate_g
        squashed = _tanh(read_cell)
        d_read_hidden = d_new_hidden
        d_read_cell = d_cell
        d_old_hidden = tl.zeros((PADDED,), tl.float32)
        d_old_cell = tl.zeros((PADDED,), tl.float32)

        if SKIMS:
            rest = 1.0 - share
            d_read_hidden = share * d_new_hidden
            d_read_cell = share * d_cell
            d_skim_hidden = rest * d_new_hidden
            d_skim_cell = rest * d_cell
            skim_hidden = old_hidden
            skim_cell = old_cell
            d_old_hidden = tl.where(is_small, 0.0, d_skim_hidden)  # What the small cell leaves as it is.
            d_old_cell = tl.where(is_small, 0.0, d_skim_cell)
            if SMALL > 0:
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
            d_margin = d_read_log_p * tl.exp(skim_log_p) - d_skim_log_p * tl.exp(read_log_p)
            if RELAXED:
                d_share = d_new_hidden * (gate_o * squashed - skim_hidden) + d_cell * (read_cell - skim_cell)
                d_margin += tl.sum(d_share) * share * rest * sharpness
            tl.store(d_projected + row + 4 * (HIDDEN + SMALL), d_margin)
            tl.store(d_projected + row + 4 * (HIDDEN + SMALL) + 1, -d_margin)

        d_read_cell += d_read_hidden * gate_o * (1.0 - squashed * squashed)
        d_gates = _gate_rows(d_read_hidden, d_read_cell, gate_i, gate_f, gate_g, gate_o, old_cell, squashed, PADDED)
        tl.store(d_projected + row + rows, d_gates, mask=is_big_row)
        tl.store(d_projected + row + rest_of_row, tl.zeros((LINE,), tl.float32), mask=rest_of_row < ROW)
        tl.debug_barrier()  # All gradients of gates are found in memory again.
        # What the next token needs has a step's time to arrive.
        token -= batch
        is_next = back + 1 < length
        kept = _kept(
            tape, states, cells, log_p, d_outputs, d_log_p, token, is_next, given, HIDDEN, SMALL, PADDED, ROW, SKIMS
        )
        # All lines of the gradients, too, are asked for at once. What comes changes nothing: with a gradient that is
        # not a number, the product is none either.
        touched, _, _, _ = _gates(tl.load(d_projected + row + rows, mask=rows < ROW, other=0.0), PADDED)
        d_hidden = d_old_hidden + _product(d_projected + row, weights, units, ROW, HIDDEN, AT_ONCE)
        d_hidden = tl.where(touched == touched, d_hidden, touched)
        d_cell = d_old_cell + d_read_cell * gate_f

    for step in range(length, steps):  # Sums over all tokens run over these, too.
        row = (step * batch + sequence) * ROW
        for first in tl.static_range(0, ROW, 4 * PADDED):
            tl.store(d_projected + row + first + rows, tl.zeros((4 * PADDED,), tl.float32), mask=first + rows < ROW)
    tl.store(d_first_hidden + state + units, d_hidden, mask=is_unit)
    tl.store(d_first_cell + state + units, d_cell, mask=is_unit)


# Calls ----------------------------------------------------------------------------------------------------------------
#
# Each way is one node of autograd, and of as few launches as can be: on a GPU a training step of one layer costs less
# than the host needs to launch what could be nodes and operators of its own. What records calls sees an operator, whose
# dispatch takes a third of a call's time on the host.


class _Layout(NamedTuple):
    """How the weights of one model, laid end to end, become what kernels and products take, and the way back.

    One matrix (R, E + D + 2) for inputs, state and both biases has its rows in the order of the kernels: a cell's rows,
    which lie gate after gate, unit after unit, then the logits read and skim, then what nothing looks at.
    """

    order: Tensor  # Places: the inputs' columns (R, E), the state's as (D, R) and as (R, D), and each bias (R)
    back: Tensor  # Places in the gradient (used rows, E + D + 2) of that matrix: all weights
    one: Tensor


@lru_cache(maxsize=16)  # One takes twice the memory of its weights.
def _layout(heights: tuple[int, ...], width: int, size: int, device: torch.device) -> _Layout:
    """The layout of parts (big cell, small cell, decision) of so many rows."""
    columns, used, place = width + size + 2, sum(heights), 0
    parts = []
    for height in heights:
        shapes = [(height, width), (height, size), (height, 1), (height, 1)]  # As the weights of a cell lie.
        places = []
        for shape in shapes:
            places.append(torch.arange(place, place + math.prod(shape)).view(shape))
            place += math.prod(shape)
        parts.append(torch.cat(places, dim=1))
    cells = [part.view(4, len(part) // 4, columns).transpose(0, 1).reshape(part.shape) for part in parts[:2]]
    rows = torch.cat([*cells, *parts[2:]])
    back = torch.empty(place, dtype=torch.int64)
    back[rows.flatten()] = torch.arange(place)
    rows = functional.pad(rows, (0, 0, 0, _whole_lines(used) - used))
    of_inputs, of_state, biases = rows.split([width, size, 2], dim=1)
    order = torch.cat([part.flatten() for part in (of_inputs, of_state.t(), of_state, biases.t())])
    return _Layout(order.to(device), back.to(device), torch.ones(1, dtype=torch.float32, device=device))


class _Packed(NamedTuple):
    """Views of packed weights: see `_Layout`."""

    of_inputs: Tensor  # (N, R, E)
    by_unit: Tensor  # (N, D, R)
    by_row: Tensor  # (N, R, D)
    biases: Tensor  # (N, 2, R)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Values (N, from) at places (to): what `index_select` does by way of this, and of more."""
    return values.gather(-1, places.expand(*values.shape[:-1], -1))


def _views(packed: Tensor, width: int, size: int) -> _Packed:
    *models, count = packed.shape
    rows = count // (width + 2 * size + 2)
    parts = packed.split([rows * width, size * rows, rows * size, 2 * rows], dim=-1)
    shapes = ((rows, width), (size, rows), (rows, size), (2, rows))
    return _Packed(*(part.view(*models, *shape) for part, shape in zip(parts, shapes, strict=True)))


def _sizes(size: int, heights: Sequence[int], row: int, units: int) -> dict[str, int]:
    """What a kernel is compiled for: sizes, and whether it skims; its warps (a thread a unit), a thread's registers."""
    skims = len(heights) > 1
    padded = triton.next_power_of_2(units)
    warps = min(max(padded // 32, 1), 32)
    return {
        "HIDDEN": size,
        "SMALL": heights[1] // 4 if skims else 0,
        "SKIMS": skims,
        "ROW": row,
        "PADDED": padded,
        "AT_ONCE": max(min(16, 4096 // padded), 1),  # Lines of a matrix, for which a thread has the registers.
        "num_warps": warps,
        "num_stages": 1,
        "maxnreg": min(_REGISTERS, 2048 // warps),  # An SM has 64 K of them.
    }


def _in_float32(device: torch.device) -> AbstractContextManager[Any]:
    """What keeps products in float32 under autocast, too."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


@cache
def _count_sms(device: torch.device) -> int:
    return 3 if INTERPRETED else torch.cuda.get_device_properties(device).multi_processor_count


def _dealing(models: Sequence[int], lengths: Tensor) -> tuple[tuple[int], dict[str, Any]]:
    """The grid of a launch, and what its programs need to know of it: see `_place`."""
    count, batch = math.prod(models), lengths.shape[-1]
    dealt = {
        "taken": lengths.new_zeros(models, dtype=torch.int32) if models else lengths,  # Of one model none is taken.
        "models": count,
        "batch": batch,
        "sms": _count_sms(lengths.device),
        "TOGETHER": bool(models),
        "INTERPRETED": INTERPRETED,
    }
    return (count * batch,), dealt


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
    """Outputs, last h and c, log-probabilities, decisions; for the way back gates, h and c before each token, weights.

    `weights` are the four of a plain cell, or those of the big cell, the small one and the decision.
    """
    (*models, steps, batch, width), size, heights = inputs.shape, hidden.shape[-1], _heights(weights)
    if steps * batch * _row_size(weights) >= 1 << 31:  # Places in a model's rows of gates.
        raise ValueError(f"{steps} steps of {batch} sequences are too many for one launch: split the batch")
    layout = _layout(heights, width, size, inputs.device)
    packed = _at(torch.cat([weight.flatten(len(models)) for weight in weights], dim=-1), layout.order)
    views = _views(packed, width, size)
    tokens, by_input, bias = inputs.flatten(-3, -2), views.of_inputs.mT, views.biases.sum(dim=-2)
    with _in_float32(inputs.device):
        projected = torch.baddbmm(bias[:, None], tokens, by_input) if models else torch.addmm(bias, tokens, by_input)
    results = (*_results(inputs, hidden, weights, keeps), packed)
    if batch == 0:
        return results  # type: ignore[return-value]
    outputs, last_hidden, last_cell, log_p, read, tape, states, cells, _ = results
    row = projected.shape[-1]
    with torch.cuda.device_of(inputs):  # Triton launches on the current one.
        grid, dealt = _dealing(models, lengths)
        _forward_kernel[grid](
            projected,
            lengths,
            hidden,
            cell,
            views.by_unit,
            noise if noise is not None else projected,
            temperature,
            outputs,
            last_hidden,
            last_cell,
            log_p,
            read,
            tape,
            states,
            cells,
            steps=steps,
            lines=packed.shape[-1] // row,
            limit=limit,
            RELAXED=noise is not None,
            KEEPS=keeps,
            **dealt,
            **_sizes(size, heights, row, row // 4),
        )
    return results  # type: ignore[return-value]


# The operators keep layouts, which a CUDA graph's own memory would hold: torch.compile leaves them out of graphs.
_TAGS = (torch.Tag.cudagraph_unsafe,)

_forward = torch.library.custom_op("skimrnn::gpu_forward", _launch_forward, mutates_args=(), tags=_TAGS)


def _heights(weights: Sequence[Tensor]) -> tuple[int, ...]:
    """Rows of the big cell, of the small one and of the decision."""
    return tuple(weight.shape[-2] for weight in weights[::4])


def _row_size(weights: Sequence[Tensor]) -> int:
    """Places of a row: the gates of both cells, the logits, and up to a whole line."""
    return _whole_lines(sum(_heights(weights)))


def _whole_lines(rows: int) -> int:
    return -(-rows // _LINE) * _LINE


def _results(inputs: Tensor, hidden: Tensor, weights: Sequence[Tensor], keeps: bool) -> tuple[Tensor, ...]:
    """What the forward kernel fills."""
    skims, tokens = len(weights) > 4, inputs.shape[:-1]
    kept = [(*tokens, _row_size(weights)), (*tokens, hidden.shape[-1])] if keeps else [(0,), (0,)]
    return (
        inputs.new_empty(*tokens, hidden.shape[-1]),
        torch.empty_like(hidden),
        torch.empty_like(hidden),
        inputs.new_empty((*tokens, 2) if skims else 0),
        inputs.new_empty(tokens if skims else 0, dtype=torch.bool),
        *(inputs.new_empty(kept[n]) for n in (0, 1, 1)),
    )


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
    lines = inputs.shape[-1] + 2 * hidden.shape[-1] + 2
    packed = inputs.new_empty(*inputs.shape[:-3], _row_size(weights) * lines)
    return (*_results(inputs, hidden, weights, keeps), packed)


def _launch_backward(
    inputs: Tensor,
    lengths: Tensor,
    heights: list[int],
    temperature: Tensor,
    relaxed: bool,
    log_p: Tensor,
    tape: Tensor,
    states: Tensor,
    cells: Tensor,
    packed: Tensor,
    d_outputs: Tensor | None,
    d_hidden: Tensor | None,
    d_cell: Tensor | None,
    d_log_p: Tensor | None,
    of_inputs: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the inputs (if they are wanted), of h_0, of c_0, and of all weights, laid end to end."""
    (*models, steps, batch, width), size = inputs.shape, states.shape[-1]
    layout, views, used = _layout(tuple(heights), width, size, inputs.device), _views(packed, width, size), sum(heights)
    d_projected = torch.empty_like(tape)
    d_first_hidden, d_first_cell = (inputs.new_empty(*models, batch, size) for _ in range(2))
    if batch > 0:
        gradients = (d_outputs, d_hidden, d_cell, d_log_p)
        with torch.cuda.device_of(inputs):
            grid, dealt = _dealing(models, lengths)
            _backward_kernel[grid](
                lengths,
                views.by_row,
                temperature,
                log_p,
                tape,
                states,
                cells,
                *(tape if gradient is None else gradient.contiguous() for gradient in gradients),
                d_projected,
                d_first_hidden,
                d_first_cell,
                steps=steps,
                lines=packed.shape[-1] // tape.shape[-1],
                given=sum(1 << place for place, gradient in enumerate(gradients) if gradient is not None),
                USED=used,
                LINE=_LINE,
                RELAXED=relaxed,
                **dealt,
                **_sizes(size, heights, tape.shape[-1], size),
            )
    by_token = d_projected.flatten(-3, -2)[..., :used]  # (N, T B, used rows)
    factors = torch.cat([inputs, states, layout.one.expand(*inputs.shape[:-1], 2)], dim=-1).flatten(-3, -2)
    with _in_float32(inputs.device):
        d_inputs = (by_token @ views.of_inputs[..., :used, :]).view(inputs.shape) if of_inputs else inputs.new_empty(0)
        d_rows = by_token.mT @ factors  # (N, used rows, E + D + 2)
    return d_inputs, d_first_hidden, d_first_cell, _at(d_rows.flatten(-2), layout.back)


_backward = torch.library.custom_op("skimrnn::gpu_backward", _launch_backward, mutates_args=(), tags=_TAGS)


@_backward.register_fake
def _(
    inputs: Tensor,
    lengths: Tensor,
    heights: list[int],
    temperature: Tensor,
    relaxed: bool,
    log_p: Tensor,
    tape: Tensor,
    states: Tensor,
    cells: Tensor,
    packed: Tensor,
    d_outputs: Tensor | None,
    d_hidden: Tensor | None,
    d_cell: Tensor | None,
    d_log_p: Tensor | None,
    of_inputs: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (*models, _, batch, width), size = inputs.shape, states.shape[-1]
    d_inputs = inputs.new_empty(inputs.shape) if of_inputs else inputs.new_empty(0)
    d_hidden, d_cell = (inputs.new_empty(*models, batch, size) for _ in range(2))
    return d_inputs, d_hidden, d_cell, inputs.new_empty(*models, sum(heights) * (width + size + 2))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    values, lengths, _, _, weights, noise, temperature, _, _ = inputs
    ctx.set_materialize_grads(False)  # What has no gradient would get zeros as large as it is.
    _, _, _, log_p, read, tape, states, cells, packed = output
    ctx.mark_non_differentiable(read, tape, states, cells, packed)
    ctx.save_for_backward(values, lengths, temperature, log_p, tape, states, cells, packed)
    ctx.heights, ctx.relaxed = list(_heights(weights)), noise is not None
    ctx.shapes = [weight.shape for weight in weights]


def _differentiate(
    ctx: Any, *gradients: Tensor | None, backward: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = _backward
) -> tuple[Any, ...]:
    inputs, lengths, temperature, *kept = ctx.saved_tensors
    wanted = ctx.needs_input_grad[0]
    results = backward(inputs, lengths, ctx.heights, temperature, ctx.relaxed, *kept, *gradients[:4], wanted)
    d_inputs, d_hidden, d_cell, d_weights = results
    models = d_weights.dim() - 1
    parts = d_weights.split([math.prod(shape[models:]) for shape in ctx.shapes], dim=-1)
    of_weights = [part.view(shape) for part, shape in zip(parts, ctx.shapes, strict=True)]
    return d_inputs if wanted else None, None, d_hidden, d_cell, of_weights, None, None, None, None


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
