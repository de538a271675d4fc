"""One sequence of each recurrent cell: the reference, the fast paths that are held to it, and the choice among them.

The environment variable `SKIMRNN_KERNEL` forces one: `reference` or `cpu` (the compiled extension; what it does not
cover, such as float64 or another device, still runs on the reference). `SKIMRNN_ISA` forces one of the extension's
instruction sets.
"""

import os
import warnings

from torch import Tensor

from skimrnn.errors import UserError
from skimrnn.kernels import reference
from skimrnn.kernels.reference import CellWeights, DecisionWeights, SkimSequence, State

try:
    from skimrnn.kernels import cpu
except ImportError as error:  # Installed where no compiler was found.
    _missing: ImportError | None = error
else:
    _missing = None

__all__ = [
    "KERNEL",
    "CellWeights",
    "DecisionWeights",
    "SkimSequence",
    "State",
    "kernel_text",
    "lstm",
    "skim_gru",
    "skim_lstm",
]


def _choose() -> str:
    forced = os.environ.get("SKIMRNN_KERNEL", "")
    if forced not in ("", "reference", "cpu"):
        raise UserError(f"SKIMRNN_KERNEL={forced}: no such kernel (reference, cpu)")
    if forced == "cpu" and _missing:
        raise UserError(f"SKIMRNN_KERNEL=cpu: the extension was not built ({_missing}): install again with a compiler")
    if _missing and not forced:
        warnings.warn(
            "skimrnn was installed without its compiled kernels: its layers run on the slow path "
            "(install again where a C++ compiler is found)",
            RuntimeWarning,
            stacklevel=2,
        )
    return forced or ("reference" if _missing else "cpu")


KERNEL = _choose()
"""The kernel in use: `cpu` or `reference`."""


def kernel_text() -> str:
    """The kernel in use with its instruction set, such as `cpu avx2`."""
    return f"cpu {cpu.isa()}" if KERNEL == "cpu" else KERNEL


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
) -> SkimSequence:
    """Run a Skim-LSTM on the kernel in use: see `skimrnn.kernels.reference.skim_lstm`."""
    run = cpu.skim_lstm if KERNEL == "cpu" and cpu.covers(inputs, *state) else reference.skim_lstm
    return run(inputs, lengths, state, big, small, decision, threshold=threshold, noise=noise, temperature=temperature)


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
) -> SkimSequence:
    """Run a Skim-GRU on the kernel in use: see `skimrnn.kernels.reference.skim_gru`."""
    run = cpu.skim_gru if KERNEL == "cpu" and cpu.covers(inputs, *state) else reference.skim_gru
    return run(inputs, lengths, state, big, small, decision, threshold=threshold, noise=noise, temperature=temperature)


def lstm(inputs: Tensor, lengths: Tensor, state: State, weights: CellWeights) -> tuple[Tensor, Tensor]:
    """Run a plain LSTM on the kernel in use: outputs (T, B, D), zero past each sequence's length, and the last h."""
    run = cpu.lstm if KERNEL == "cpu" and cpu.covers(inputs, *state) else reference.lstm
    outputs, last = run(inputs, lengths, state, weights)
    return outputs, last[0]
