"""The layers of several models, run in one launch of a kernel that takes a leading dimension of models."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from skimrnn import kernels
from skimrnn.kernels import CellWeights, DecisionWeights
from skimrnn.layers.skim_lstm import SkimLSTM
from skimrnn.layers.skimming import Decisions


def last_states_together(
    layers: Sequence[nn.LSTM] | Sequence[SkimLSTM],
    inputs: Sequence[Tensor],
    lengths: Sequence[Tensor],
    noises: Sequence[Tensor],
) -> list[tuple[Tensor, Decisions | None]]:
    """What each layer (one layer, one direction, equal sizes) gives in training mode for its own padded batch.

    Inputs (T, B, E), lengths (B) and, for layers that skim, Gumbel noise (T, B, 2) may be of another size for each
    model. Gives the state (B, D) after the last real token, and the decisions, of each.
    """
    steps = max(len(values) for values in inputs)
    batch = max(values.shape[1] for values in inputs)

    def pad(values: Sequence[Tensor]) -> Tensor:
        """Values (T, B, n) of each model as (N, T, B, n)."""
        return torch.stack([functional.pad(v, (0, 0, 0, batch - v.shape[1], 0, steps - v.shape[0])) for v in values])

    def weights(prefix: str) -> list[Tensor]:
        names = [f"{prefix}{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        return [torch.stack([layer.get_parameter(name) for layer in layers]) for name in names]

    padded = pad(inputs)
    padded_lengths = torch.stack([functional.pad(n, (0, batch - len(n))) for n in lengths]).to(padded.device)
    zeros = padded.new_zeros(len(layers), batch, layers[0].hidden_size)
    if not isinstance(layers[0], SkimLSTM):
        _, hidden = kernels.lstm(padded, padded_lengths, (zeros, zeros), CellWeights(*weights("")))
        return [(last[: len(n)], None) for last, n in zip(hidden, lengths, strict=True)]
    sequence = kernels.skim_lstm(
        padded,
        padded_lengths,
        (zeros, zeros),
        CellWeights(*weights("")),
        CellWeights(*weights("small_")),
        DecisionWeights(*weights("decision_")),
        noise=pad(noises),
        temperature=padded.new_tensor([layer.temperature for layer in layers]),
    )
    results: list[tuple[Tensor, Decisions | None]] = []
    for place, n in enumerate(lengths):
        own = slice(len(inputs[place])), slice(len(n))
        log_p, read = sequence.log_probabilities[place][own], sequence.read[place][own]
        decisions = Decisions(log_p[None], read[None], n.to(padded.device))
        results.append((sequence.state[0][place, : len(n)], decisions))
    return results
