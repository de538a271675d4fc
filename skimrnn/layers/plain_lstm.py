"""`nn.LSTM` over padded batches, without the price of packing them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from skimrnn import kernels
from skimrnn.kernels import CellWeights
from skimrnn.layers.skimming import reorder, reversal


def padded_lstm(lstm: nn.LSTM, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What `lstm` gives for inputs (T, B, E) of `lengths` (B, int64), from a zero state.

    Outputs (T, B, directions * D), zero past each sequence's length, and the last h of the last layer
    (B, directions * D): those of a packed batch.
    """
    lengths = lengths.to(inputs.device)
    order = reversal(lengths, len(inputs)) if lstm.bidirectional else None
    state = inputs.new_zeros(inputs.shape[1], lstm.hidden_size)
    weights = iter(lstm.all_weights)
    last = state
    for layer in range(lstm.num_layers):
        if layer > 0:
            inputs = functional.dropout(inputs, lstm.dropout, lstm.training)

        def run(values: Tensor) -> tuple[Tensor, Tensor]:
            parameters: list[Tensor] = list(next(weights))
            if not lstm.bias:
                parameters += [values.new_zeros(len(parameters[0]))] * 2
            return kernels.lstm(values, lengths, (state, state), CellWeights(*parameters))

        runs = [run(inputs)]
        if order is not None:
            outputs, hidden = run(reorder(inputs, order))
            runs.append((reorder(outputs, order), hidden))
        inputs, last = (torch.cat(both, dim=-1) if order is not None else both[0] for both in zip(*runs, strict=True))
    return inputs, last
