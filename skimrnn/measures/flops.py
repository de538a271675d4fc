"""Flop-r: how many times fewer float operations a skimming model needs than the standard one, in two conventions.

Only matrix products count; gates and biases, linear in d, are left out, as in the paper.
"""

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn

from skimrnn.files import Closed
from skimrnn.layers import SkimLSTM
from skimrnn.models import BiDAF, LSTMAtt, Reader
from skimrnn.models.bidaf import CHARACTER_WIDTH


class FlopReduction(Closed):
    """The standard model's float operations over the skimming model's."""

    published_convention: float
    exact_count: float


def flop_reduction(skim_rate: float, hidden_size: int, small_size: int) -> FlopReduction:
    """Flop-r of one recurrent layer at a skim rate (0 to 1) over real tokens.

    Both conventions charge each token for the decision: a choice between two needs one dot product (the difference
    of the two logits) where the big cell needs 4d. They differ in the price of a skimmed token.

    - Published convention: (d'/d)^2 of the big cell. At the printed skim rates it gives 15 of the 16 printed values of
      the classification table, and the last one (IMDb, Skim 10/.02) within the rounding of its skim rate.
    - Exact count: d'/d of the big cell, because the small cell reads the whole of x_t and h_{t-1} (Eq. 3): 4d' rows
      where the big cell has 4d, of the same length.
    """
    ratio = small_size / hidden_size
    decision = 1 / (4 * hidden_size)
    return FlopReduction(
        published_convention=1 / ((1 - skim_rate) + skim_rate * ratio**2 + decision),
        exact_count=1 / ((1 - skim_rate) + skim_rate * ratio + decision),
    )


class Operations(Closed):
    """Float operations (a multiplication and an addition are two) of the parts of a reader, over some questions."""

    characters: float = 0.0
    highway: float = 0.0
    attention: float
    recurrent: float
    decision: float
    output: float

    @property
    def total(self) -> float:
        """Of the whole model."""
        parts: dict[str, float] = self.model_dump()
        return sum(parts.values())


def reader_operations(
    model: Reader,
    question_lengths: Tensor,
    context_lengths: Tensor,
    skim_rates: Mapping[str, float] | None = None,
    *,
    published_convention: bool = False,
) -> Operations:
    """Float operations of `model` on questions (N) about contexts (N) of so many tokens, at its measured skim rates.

    `skim_rates` holds one rate for each of the reader's sequences. The exact count charges a skimmed token for the
    small cell as it is; the published convention for (d'/d)^2 of the big one. The parameters say how large each product
    is: a weight of r rows and c columns costs 2 r c a token. BiDAF's characters are counted for each token, as in its
    paper, though `BiDAF` filters a word that comes again in a batch once.
    """
    tokens, question_tokens = int(context_lengths.sum()), int(question_lengths.sum())
    pairs = float((question_lengths * context_lengths).sum())
    cells = [(sequence, *cell, tokens) for sequence, cell in zip(model.sequences, _cells(model), strict=True)]
    # The first sequences, BiDAF's contextual ones, read the questions, too.
    questions = zip(model.question_sequences, _cells(model), strict=False)
    cells += [(sequence, *cell, question_tokens) for sequence, cell in questions]
    recurrent, decision = _recurrent(cells, skim_rates or {}, published_convention)
    if isinstance(model, BiDAF):
        windows = model.spellings.shape[1] - CHARACTER_WIDTH + 1
        size = 2 * model.contextual.hidden_size
        highway = sum(part.weight.numel() for part in model.highway.modules() if isinstance(part, nn.Linear))
        return Operations(
            characters=2 * model.convolution.weight.numel() * windows * (tokens + question_tokens),
            highway=2 * highway * (tokens + question_tokens),
            # Of each pair of words the similarity and the average; of each word its own term, h~ and the summary.
            attention=2 * size * (2 * pairs + 3 * tokens),
            recurrent=recurrent,
            decision=decision,
            output=2 * (model.start.weight.numel() + model.end.weight.numel()) * tokens,
        )
    assert isinstance(model, LSTMAtt)
    return Operations(
        # Each word's projection; of each word of a context with each of its question the similarity, and the average.
        attention=2 * model.projection.weight.numel() * (tokens + question_tokens)
        + 2 * 2 * model.embedding.embedding_dim * pairs,
        recurrent=recurrent,
        decision=decision,
        output=2 * model.output.weight.numel() * tokens,
    )


def _cells(model: Reader) -> Iterator[tuple[nn.LSTM | SkimLSTM, str]]:
    """The layer of each sequence, and the ending of the names of its weights."""
    for layer in model.children():
        if isinstance(layer, nn.LSTM | SkimLSTM):
            yield from ((layer, suffix) for suffix in _directions(layer))


def _recurrent(
    cells: Iterable[tuple[str, nn.LSTM | SkimLSTM, str, int]],
    skim_rates: Mapping[str, float],
    published_convention: bool,
) -> tuple[float, float]:
    """Float operations of the cells and of the decisions of sequences: name, layer, ending of the weights, tokens."""
    recurrent, decision = 0.0, 0.0
    for sequence, layer, suffix, tokens in cells:
        big = _cell(layer, "", suffix)
        if not isinstance(layer, SkimLSTM):
            recurrent += big * tokens
            continue
        skimmed = skim_rates[sequence] * tokens
        ratio = layer.small_size / layer.hidden_size
        small = ratio**2 * big if published_convention else _cell(layer, "small_", suffix)
        recurrent += big * (tokens - skimmed) + small * skimmed
        decision += _cell(layer, "decision_", suffix) / 2 * tokens  # The difference of two logits is one row.
    return recurrent, decision


def _directions(layer: nn.LSTM | SkimLSTM) -> list[str]:
    """The endings of the names of each layer's and direction's weights, in the order of h_n."""
    return [name.removeprefix("weight_ih") for name, _ in layer.named_parameters() if name.startswith("weight_ih")]


def _cell(layer: nn.LSTM | SkimLSTM, prefix: str, suffix: str) -> float:
    """Float operations of one token in one cell."""
    return 2 * sum(layer.get_parameter(f"{prefix}weight_{kind}{suffix}").numel() for kind in ("ih", "hh"))
