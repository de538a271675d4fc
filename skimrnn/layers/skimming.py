"""What Skim-LSTM and Skim-GRU share: parameters, layers and directions, the kinds of input, the decisions."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from skimrnn.kernels import CellWeights, DecisionWeights, SkimSequence, State, runs_models_together
from skimrnn.kernels.reference import in_order, reorder, reversal
from skimrnn.layers.plain_lstm import checked_lengths


class Decisions(NamedTuple):
    """The decisions of a module about a batch: one entry for each of its L layers times directions, in h_n's order.

    Time comes first whatever `batch_first` says; for unbatched input there is no B. Positions past a sequence's
    length are zero and False.
    """

    log_probabilities: Tensor  # (L, T, B, 2): log p_t, read first
    read: Tensor  # (L, T, B), bool: p_t(read) > threshold
    lengths: Tensor  # (B), int64: real tokens of each sequence

    def skim_rate(self) -> Tensor:
        """The share of real tokens that are skimmed, over all layers and directions: 0 to 1, NaN without a sequence."""
        return 1 - self.read.sum() / (len(self.read) * self.lengths.sum())

    def skim_loss(self) -> Tensor:
        """Mean over sequences (and layers) of (1/T) sum_t -log p_t(skim) over T real tokens: the loss's skim term.

        NaN without a sequence, as torch's means are.
        """
        return (self.log_probabilities[..., 1].sum(dim=1) / -self.lengths).mean()


class SkimmingLayer(nn.Module):
    """Base of `SkimLSTM` and `SkimGRU`: parameters and the walk over layers and directions.

    Parameters carry torch's names (`weight_ih_l0`, `bias_hh_l1_reverse`, ...) for the big cell, with the prefix
    `small_` for the small cell and `decision_` for the decision, so a state dict shows which is which.
    """

    _name: ClassVar[str]  # of torch's counterpart
    _gates: ClassVar[int]
    _run: ClassVar[Callable[..., SkimSequence]]  # the kernel
    _takes_models: ClassVar[bool] = False  # whether there is a kernel for it that runs several models in one launch

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        small_size: int,
        threshold: float = 0.5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if value <= 0:
                raise ValueError(f"{name} must be greater than zero")
        if not 0 <= small_size <= hidden_size:
            raise ValueError(f"small_size must lie between 0 and hidden_size ({hidden_size}), not {small_size}")
        if not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn("dropout acts between layers, so with num_layers=1 it does nothing", stacklevel=2)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.small_size = small_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.threshold = threshold
        self.temperature = 1.0
        directions = 2 if bidirectional else 1
        for layer in range(num_layers):
            width = input_size if layer == 0 else directions * hidden_size
            for suffix in self._suffixes(layer):
                for prefix, rows in (
                    ("", self._gates * hidden_size),
                    ("small_", self._gates * small_size),
                    ("decision_", 2),
                ):
                    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width), "weight_hh": (rows, hidden_size)}
                    if bias:
                        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                    else:  # One tensor for all calls: packed weights are known by their tensors.
                        zeros = torch.zeros(rows, device=device, dtype=dtype)
                        self.register_buffer(prefix + "no_bias", zeros, persistent=False)
                    for name, shape in shapes.items():
                        parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
                        self.register_parameter(prefix + name + suffix, parameter)
        self.reset_parameters()

    @classmethod
    def _from_torch(cls, rnn: nn.RNNBase, small_size: int, threshold: float) -> Self:
        if not isinstance(rnn, getattr(nn, cls._name)):
            raise TypeError(f"{cls.__name__} starts from an nn.{cls._name}, not from a {type(rnn).__name__}")
        if rnn.proj_size:
            raise ValueError("an LSTM with projections (proj_size) has no skimming counterpart")
        # Under all names of the big cell, which are torch's; computed, where they are pruned or parametrized.
        weights = {name: getattr(rnn, name).detach() for names in rnn._all_weights for name in names}
        layer = cls._like(rnn, weights["weight_ih_l0"], small_size, threshold)
        layer.load_state_dict(weights, strict=False)  # The small cell and the decision are not there.
        return layer

    @classmethod
    def _like(cls, layer: "nn.RNNBase | SkimmingLayer", weight: Tensor, small_size: int, threshold: float) -> Self:
        """A new layer with another's sizes, options and mode, on the device and in the dtype of `weight`."""
        new = cls(
            layer.input_size,
            layer.hidden_size,
            layer.num_layers,
            layer.bias,
            layer.batch_first,
            layer.dropout,
            layer.bidirectional,
            small_size=small_size,
            threshold=threshold,
            device=weight.device,
            dtype=weight.dtype,
        )
        return new.train(layer.training)

    @property
    def threshold(self) -> float:
        """A token is read where p_t(read) is above it: from 0, which reads all, to 1, which skims all."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"threshold must lie between 0 and 1, not {value}")
        self._threshold = float(value)

    @property
    def temperature(self) -> float:
        """The Gumbel-softmax's tau in training: above 0."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        if not 0 < value < math.inf:
            raise ValueError(f"temperature must be above 0 and finite, not {value}")
        self._temperature = float(value)

    def reset_parameters(self) -> None:
        """Draw all weights uniformly from +-1/sqrt(hidden_size), as torch's layers do."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        for zeros in self.buffers():
            nn.init.zeros_(zeros)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        weight = self._weight("weight_ih_l0")
        for name, zeros in self.named_buffers(recurse=False):  # Not in the state, and not there on the meta device.
            setattr(self, name, torch.zeros(zeros.shape, device=weight.device, dtype=weight.dtype))

    def flatten_parameters(self) -> None:
        """Do nothing: programs call this on torch's layers, and here the kernels lay the weights out themselves."""

    def extra_repr(self) -> str:
        """What `print(layer)` shows."""
        shown = [f"{self.input_size}, {self.hidden_size}, small_size={self.small_size}, threshold={self.threshold}"]
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        shown += [f"{name}={getattr(self, name)}" for name, value in defaults.items() if getattr(self, name) != value]
        return ", ".join(shown)

    def _forward(
        self, input: Tensor | PackedSequence, state: State | None
    ) -> tuple[Tensor | PackedSequence, State, Decisions]:
        if isinstance(input, PackedSequence):
            data, state = self._checked_input(input.data, state)
            padded, lengths = pad_packed_sequence(
                input._replace(data=data)
            )  # In the order that the caller knows, as `state` is.
            state = self._checked_state(padded, state)
            outputs, last, decisions = self._run_layers(padded, lengths, state)
            if input.sorted_indices is not None:
                outputs = outputs.index_select(1, input.sorted_indices)
                lengths = lengths[input.sorted_indices.cpu()]
            data = pack_padded_sequence(outputs, lengths).data
            return input._replace(data=data), last, decisions
        if input.dim() not in (2, 3):
            raise ValueError(f"{self._name}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        self._check_dimensions(state, batched)
        input, state = self._checked_input(input, state)
        padded = input.transpose(0, 1) if batched and self.batch_first else input  # (T, B, E) or (T, E)
        if not batched:
            padded = padded[:, None]
            state = tuple(s[:, None] for s in state) if state else None
        state = self._checked_state(padded, state)
        steps, batch, _ = padded.shape  # What records a call sees that these can change, as it does not with `len`.
        if steps == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        lengths = torch.full((batch,), steps, device=padded.device)
        outputs, last, decisions = self._run_layers(padded, lengths, state)
        if not batched:
            decisions = Decisions(decisions.log_probabilities[:, :, 0], decisions.read[:, :, 0], decisions.lengths[0])
            return outputs[:, 0], tuple(s[:, 0] for s in last), decisions
        return outputs.transpose(0, 1) if self.batch_first else outputs, last, decisions

    def run_padded(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, State, Decisions]:
        """What the layer gives for a packed batch, from a zero state and without the price of packing it.

        Inputs (T, B, `input_size`) of `lengths` (B); outputs (T, B, directions * `hidden_size`), zero past each length,
        the last state in torch's shape, and the decisions. A length that is not in 1 to T is a `ValueError`.
        """
        inputs, _ = self._checked_input(inputs, None)
        return self._run_layers(inputs, checked_lengths(lengths, inputs), self._checked_state(inputs, None))

    def _run_layers(self, inputs: Tensor, lengths: Tensor, state: State) -> tuple[Tensor, State, Decisions]:
        """Run all layers over (T, B, E) from `state` (L, B, D each)."""
        lengths = lengths.to(inputs.device)
        sequences: list[SkimSequence] = []
        for layer in range(self.num_layers):
            if layer > 0:
                inputs = functional.dropout(inputs, self.dropout, self.training)
            first = [tuple(s[len(sequences) + place] for s in state) for place in range(2 if self.bidirectional else 1)]
            layer_sequences = self._run_layer(inputs, lengths, first, layer)
            sequences += layer_sequences
            directions = [sequence.outputs for sequence in layer_sequences]
            inputs = directions[0] if len(directions) == 1 else torch.cat(directions, dim=2)
        # Not a view, which torch does not let be detached in place, as is done between the parts of a long text.
        last = tuple(torch.stack(values) for values in zip(*(s.state for s in sequences), strict=True))
        log_p = _stack([s.log_probabilities for s in sequences])
        return inputs, last, Decisions(log_p, _stack([s.read for s in sequences]), lengths)

    def _run_layer(self, inputs: Tensor, lengths: Tensor, states: list[State], layer: int) -> list[SkimSequence]:
        """Run one layer in each direction, from the states (B, D) of each: both in one launch where the kernel can."""
        suffixes = list(self._suffixes(layer))
        if not (self.bidirectional and self._takes_models and runs_models_together(inputs)):
            return [self._run_direction(inputs, lengths, *each) for each in zip(states, suffixes, strict=True)]
        order = reversal(lengths, inputs.shape[0])  # Not len(), which a trace would make a constant.
        state = tuple(torch.stack(parts) for parts in zip(*states, strict=True))
        sides = torch.stack([inputs, reorder(inputs, order)])
        noise = self._noise(sides)
        if noise is not None:  # A token's noise does not depend on the order of reading.
            noise = torch.stack([noise[0], reorder(noise[1], order)])
        both = self._run_cells(sides, lengths.expand(2, -1), state, suffixes, noise)
        forward, backward = (
            SkimSequence(
                both.outputs[side],
                tuple(part[side] for part in both.state),
                both.log_probabilities[side],
                both.read[side],
            )
            for side in range(2)
        )
        return [forward, in_order(backward, order)]

    def _run_direction(self, inputs: Tensor, lengths: Tensor, state: State, suffix: str) -> SkimSequence:
        reverse = suffix.endswith("_reverse")
        return self._run_cells(inputs, lengths, state, [suffix], self._noise(inputs), reverse)

    def _noise(self, inputs: Tensor) -> Tensor | None:
        return gumbel_noise(inputs) if self.training else None

    def _run_cells(
        self,
        inputs: Tensor,
        lengths: Tensor,
        state: State,
        suffixes: Sequence[str],
        noise: Tensor | None,
        reverse: bool = False,
    ) -> SkimSequence:
        """Run the cells of one suffix or, with a leading dimension on all tensors, of each."""

        def weights(prefix: str) -> list[Tensor]:
            parts = zip(*(self._weights(prefix, suffix) for suffix in suffixes), strict=True)
            return [part[0] if len(suffixes) == 1 else torch.stack(part) for part in parts]

        return type(self)._run(
            inputs,
            lengths,
            state,
            CellWeights(*weights("")),
            CellWeights(*weights("small_")),
            DecisionWeights(*weights("decision_")),
            threshold=self.threshold,
            noise=noise,
            temperature=self.temperature,
            reverse=reverse,
        )

    def _suffixes(self, layer: int) -> Iterator[str]:
        yield f"_l{layer}"
        if self.bidirectional:
            yield f"_l{layer}_reverse"

    def _weights(self, prefix: str, suffix: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weights = self._weight(f"{prefix}weight_ih{suffix}"), self._weight(f"{prefix}weight_hh{suffix}")
        if not self.bias:
            zeros: Tensor = getattr(self, prefix + "no_bias")
            return *weights, zeros, zeros
        return *weights, self._weight(f"{prefix}bias_ih{suffix}"), self._weight(f"{prefix}bias_hh{suffix}")

    def _weight(self, name: str) -> Tensor:
        """A parameter, or what pruning or a parametrisation put in its place."""
        parameter: Any = self._parameters.get(name)  # Much faster than the attribute.
        weight: Tensor = getattr(self, name) if parameter is None else parameter
        return weight

    # Torch's own messages, so that a program that expects them goes on working.

    def _check_dimensions(self, state: State | None, batched: bool) -> None:
        expected = 3 if batched else 2
        if state is None or all(s.dim() == expected for s in state):
            return
        kind = "batched 3-D" if batched else "unbatched 2-D"
        if len(state) == 2:
            raise RuntimeError(
                f"For {kind} input, hx and cx should also be {expected}-D "
                f"but got ({state[0].dim()}-D, {state[1].dim()}-D) tensors"
            )
        raise RuntimeError(f"For {kind} input, hx should also be {expected}-D but got {state[0].dim()}-D tensor")

    def _checked_input(self, input: Tensor, state: State | None) -> tuple[Tensor, State | None]:
        """The input and the state; under autocast in the type of the weights, which the kernels compute in."""
        weight = self._weight("weight_ih_l0")
        dtype = weight.dtype
        if input.device != weight.device:
            raise RuntimeError(
                "Input and parameter tensors are not at the same device, "
                f"found input tensor at {input.device} and parameter tensor at {weight.device}"
            )
        kind = input.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):  # Asked about meta, torch raises.
            input, state = input.to(dtype), None if state is None else tuple(s.to(dtype) for s in state)
        if input.dtype != dtype:
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({dtype}). "
                f"Convert input: input.to({dtype}), or convert model: model.to({input.dtype})"
            )
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}"
            )
        return input, state

    def _checked_state(self, padded: Tensor, state: State | None) -> State:
        """The initial state (L, B, D each): zeros where none is given."""
        expected = (self.num_layers * (2 if self.bidirectional else 1), padded.shape[1], self.hidden_size)
        count = 2 if self._name == "LSTM" else 1
        if state is None:
            return (padded.new_zeros(expected),) * count
        if len(state) != count:
            raise RuntimeError("lstm expects two hidden states")
        for index, s in enumerate(state):
            if s.shape != expected:
                which = f"[{index}]" if count == 2 else ""
                raise RuntimeError(f"Expected hidden{which} size {expected}, got {list(s.shape)}")
            if s.dtype != padded.dtype:
                raise ValueError(f"RNN state dtype ({s.dtype}) does not match input dtype ({padded.dtype})")
            if s.device != padded.device:
                raise RuntimeError(
                    "Input and hidden tensors are not at the same device, "
                    f"found input tensor at {padded.device} and hidden tensor at {s.device}"
                )
        return state


def gumbel_noise(inputs: Tensor) -> Tensor:
    """Standard Gumbel noise (..., 2) for the decisions about inputs (..., E)."""
    # Not `new_empty`, of which torch.compile takes two for one, and so what is drawn into them.
    noise = torch.empty(*inputs.shape[:-1], 2, dtype=inputs.dtype, device=inputs.device)
    return noise.exponential_().log_().neg_()


def _stack(values: Sequence[Tensor]) -> Tensor:
    return values[0][None] if len(values) == 1 else torch.stack(list(values))  # A view costs less than a copy.
