"""`nn.LSTM` over padded batches, without the price of packing them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from skimrnn import kernels
from skimrnn.kernels import CellWeights


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
        runs = []
        for reverse in directions:
            parameters: list[Tensor] = list(next(weights))
            if not lstm.bias:
                parameters += [state.new_zeros(len(parameters[0]))] * 2
            runs.append(kernels.lstm(inputs, lengths, (state, state), CellWeights(*parameters), reverse=reverse))
        inputs, last = (torch.cat(both, dim=-1) if len(both) > 1 else both[0] for both in zip(*runs, strict=True))
    return inputs, last


def checked_lengths(lengths: Tensor, inputs: Tensor) -> Tensor:
    """`lengths` (B) of sequences in `inputs` (T, B, E), as int64; one that is not in 1 to T is a `ValueError`."""
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= len(inputs):
        raise ValueError(
            f"lengths must lie between 1 and {len(inputs)}, the steps of the batch, not {lengths.tolist()}"
        )
    return lengths.to(torch.int64)
