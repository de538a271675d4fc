"""`nn.LSTM` over padded batches, without the price of packing them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from skimrnn import kernels
from skimrnn.kernels import CellWeights
from skimrnn.kernels.reference import reorder, reversal


def padded_lstm(lstm: nn.LSTM, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What `lstm` gives for inputs (T, B, E) of `lengths` (B), from a zero state.

    Outputs (T, B, directions * D), zero past each sequence's length, and the last h of the last layer
    (B, directions * D): those of a packed batch. A length that is not in 1 to T is a `ValueError`.
    """
    lengths = checked_lengths(lengths, inputs).to(inputs.device)
    state = inputs.new_zeros(inputs.shape[1], lstm.hidden_size)
    directions = (False, True) if lstm.bidirectional else (False,)
    weights = iter(lstm.all_weights)
    last = state
    for layer in range(lstm.num_layers):
        if layer > 0:
            inputs = functional.dropout(inputs, lstm.dropout, lstm.training)
        cells = []
        for _ in directions:
            parameters: list[Tensor] = list(next(weights))
            if not lstm.bias:
                parameters += [state.new_zeros(len(parameters[0]))] * 2
            cells.append(CellWeights(*parameters))
        if lstm.bidirectional and kernels.runs_models_together(inputs):
            runs = _both_directions(inputs, lengths, state, cells)
        else:
            runs = [
                kernels.lstm(inputs, lengths, (state, state), cell, reverse=reverse)
                for cell, reverse in zip(cells, directions, strict=True)
            ]
        inputs, last = (torch.cat(both, dim=-1) if len(both) > 1 else both[0] for both in zip(*runs, strict=True))
    return inputs, last


def _both_directions(
    inputs: Tensor, lengths: Tensor, state: Tensor, cells: list[CellWeights]
) -> list[tuple[Tensor, Tensor]]:
    """Outputs and the last h forward and backward, in one launch."""
    order = reversal(lengths, inputs.shape[0])
    sides, first = torch.stack([inputs, reorder(inputs, order)]), state.expand(2, *state.shape)
    weights = CellWeights(*map(torch.stack, zip(*cells, strict=True)))
    outputs, last = kernels.lstm(sides, lengths.expand(2, -1), (first, first), weights)
    return [(outputs[0], last[0]), (reorder(outputs[1], order), last[1])]


def checked_lengths(lengths: Tensor, inputs: Tensor) -> Tensor:
    """`lengths` (B) of sequences in `inputs` (T, B, E), as int64; one that is not in 1 to T is a `ValueError`."""
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= len(inputs):
        raise ValueError(
            f"lengths must lie between 1 and {len(inputs)}, the steps of the batch, not {lengths.tolist()}"
        )
    return lengths.to(torch.int64)
