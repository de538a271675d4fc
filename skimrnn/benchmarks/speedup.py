"""Sp: how much faster a trained Skim-LSTM reads real texts than a standard LSTM of its size, one text at a time."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from skimrnn.benchmarks.competitors import all_weights, numpy_lstm_reader, numpy_skim_reader
from skimrnn.benchmarks.timing import Timing, time_together
from skimrnn.data.prepare import Prepared, Split
from skimrnn.errors import UserError
from skimrnn.files import Closed, read_tensors
from skimrnn.kernels import KERNEL
from skimrnn.layers import SkimLSTM
from skimrnn.provenance import Environment, environment

if KERNEL == "cpu":  # Else NumPy alone is timed.
    from skimrnn.kernels import cpu

WAYS = ("numpy", "demand", "folded")
"""NumPy as in the paper; our kernels, projecting inputs on demand; our kernels, projections kept per word."""

WHOLE = "whole"
"""The whole of a reader, layers and all else, beside its standard counterpart."""


class ModelSpeed(Closed):
    """One trained model: seconds for all texts, by way, of the standard LSTM and of the Skim-LSTM.

    Readers are timed in one way, `WHOLE`; without the compiled kernels NumPy is the only way for classifiers.
    """

    skim_rate: float
    lstm: dict[str, Timing]
    skim: dict[str, Timing]

    def speedup(self, way: str) -> float | None:
        """The standard model's time over the skimming one's, in one way; None where that was not timed."""
        return self.lstm[way].median / self.skim[way].median if way in self.skim else None


class Speed(Closed):
    """The trained models of one dataset, timed on one sample of its test texts: one thread.

    Classifiers are timed at batch 1, readers on contexts in the batches that they are evaluated in.
    """

    dataset: str
    texts: int
    tokens: int
    data_digest: str
    isa: str | None
    environment: Environment
    models: dict[str, dict[int, ModelSpeed]]  # by model and seed


def measure_speed(prepared: Prepared, weights: dict[str, dict[int, Path]], tokens: int, rounds: int) -> Speed:
    """Time every trained Skim-LSTM of `weights` (files by model and seed) on test texts of some `tokens` tokens.

    The standard LSTM beside it has the big cell's weights: its time does not depend on them. Each text is one call,
    and what a call costs counts; looking up the embeddings does not.
    """
    texts = _sample(prepared.split("test"), tokens)
    read = sum(len(text) for text in texts)
    return time_models(prepared, weights, len(texts), read, lambda _, path: _time_model(path, texts, rounds))


def time_models(
    prepared: Prepared,
    weights: dict[str, dict[int, Path]],
    texts: int,
    tokens: int,
    time_model: Callable[[str, Path], ModelSpeed],
) -> Speed:
    """Time every model of `weights` (files by model and seed) by its name and file, on one thread."""
    torch.set_num_threads(1)
    models = {
        model: {seed: time_model(model, path) for seed, path in seeds.items()} for model, seeds in weights.items()
    }
    return Speed(
        dataset=prepared.manifest["dataset"],
        texts=texts,
        tokens=tokens,
        data_digest=prepared.manifest["digest"],
        isa=cpu.isa() if KERNEL == "cpu" else None,
        environment=environment(),
        models=models,
    )


def _sample(split: Split, tokens: int) -> list[Tensor]:
    """Texts (word numbers) in an order that is always the same, until they have `tokens` tokens."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    texts: list[Tensor] = []
    total = 0
    for index in order.tolist():
        if total >= tokens:
            break
        texts.append(split.tokens[split.offsets[index] : split.offsets[index + 1]].long())
        total += len(texts[-1])
    return texts


def _time_model(path: Path, texts: list[Tensor], rounds: int) -> ModelSpeed:
    tensors, _ = read_tensors(path)
    vectors = tensors["embedding.weight"]
    layer = _skim_lstm(tensors, path)
    lstm = nn.LSTM(layer.input_size, layer.hidden_size)
    lstm.load_state_dict(layer.state_dict(), strict=False)
    inputs = [vectors[text][:, None] for text in texts]  # (T, 1, E) each
    numpy_lstm, numpy_skim = numpy_lstm_reader(lstm), numpy_skim_reader(layer)
    functions: dict[str, Callable[[], object]] = {
        "lstm numpy": lambda: [numpy_lstm(x) for x in inputs],
        "skim numpy": lambda: [numpy_skim(x) for x in inputs],
    }
    if KERNEL == "cpu":
        functions |= _kernels(lstm, layer, vectors, texts, inputs)
    timings = time_together(functions, rounds, warm_up=1)
    with torch.no_grad():
        read = sum(int(layer(x, return_decisions=True)[2].read.sum()) for x in inputs)
    return ModelSpeed(
        skim_rate=1 - read / sum(len(text) for text in texts),
        lstm={way: timings[f"lstm {way}"] for way in WAYS if f"lstm {way}" in timings},
        skim={way: timings[f"skim {way}"] for way in WAYS if f"skim {way}" in timings},
    )


def _kernels(
    lstm: nn.LSTM, layer: SkimLSTM, vectors: Tensor, texts: list[Tensor], inputs: list[Tensor]
) -> dict[str, Callable[[], object]]:
    state = (torch.zeros(1, layer.hidden_size),) * 2
    lengths = [torch.tensor([len(text)]) for text in texts]
    words = [text[:, None] for text in texts]  # (T, 1)

    def reads(run: cpu.Frozen, inputs: list[Tensor]) -> Callable[[], object]:
        return lambda: [run(x, n, state) for x, n in zip(inputs, lengths, strict=True)]

    return {
        f"{name} {way}": reads(cpu.Frozen("lstm", all_weights(timed), *keep), source)
        for name, timed in (("lstm", lstm), ("skim", layer))
        for way, source, keep in (("demand", inputs, ()), ("folded", words, (vectors,)))
    }


def _skim_lstm(tensors: dict[str, Tensor], path: Path) -> SkimLSTM:
    """The layer of a trained classifier, its sizes read off the weights."""
    weights = {name.removeprefix("layer."): tensor for name, tensor in tensors.items() if name.startswith("layer.")}
    try:
        input_size = weights["weight_ih_l0"].shape[1]
        hidden_size, small_size = weights["weight_hh_l0"].shape[1], len(weights["small_weight_hh_l0"]) // 4
        layer = SkimLSTM(input_size, hidden_size, small_size=small_size)
        layer.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not the weights of a Skim-LSTM classifier: train it again") from error
    return layer.eval()
