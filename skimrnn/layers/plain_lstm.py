"""`nn.LSTM` over padded batches, without the price of packing them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from skimrnn.layers.skimming import reorder, reversal


def padded_lstm(lstm: nn.LSTM, inputs: Tensor, lengths: Tensor) -> Tensor:
    """What `lstm` gives for inputs (T, B, E) of `lengths` (B): outputs (T, B, directions * D), from a zero state.

    At real tokens the outputs are those of a packed batch; past them they are undefined. Torch's kernel is called for
    one layer and direction at a time, on reversed input where `lstm` reads backwards: in training on the CPU that takes
    a third of the time of a packed batch, which torch runs step by step.
    """
    order = reversal(lengths.to(inputs.device), len(inputs)) if lstm.bidirectional else None
    state = inputs.new_zeros(1, inputs.shape[1], lstm.hidden_size)
    weights = iter(lstm.all_weights)
    for layer in range(lstm.num_layers):
        if layer > 0:
            inputs = functional.dropout(inputs, lstm.dropout, lstm.training)

        def run(values: Tensor) -> Tensor:
            return torch.lstm(
                values, (state, state), list(next(weights)), lstm.bias, 1, 0.0, lstm.training, False, False
            )[0]

        outputs = [run(inputs)]
        if order is not None:
            outputs.append(reorder(run(reorder(inputs, order)), order))
        inputs = torch.cat(outputs, dim=2) if order is not None else outputs[0]
    return inputs
