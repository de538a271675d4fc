"""What the legend of the question answering table says of the printed Flop-r, against our count at the same sizes."""

import torch

from skimrnn.config import BiDAFConfig, LSTMAttConfig, ReaderConfig, SkimBiDAFConfig, SkimLSTMAttConfig
from skimrnn.measures.flops import Operations, reader_operations
from skimrnn.published import published_value, published_values
from skimrnn.reporting.reading_table import LEGEND
from skimrnn.training.reading import build_reader

LSTM_ATT = LSTMAttConfig(architecture="lstm_att", hidden_size=100)
BIDAF = BiDAFConfig(architecture="bidaf", hidden_size=100)


def operations(config: ReaderConfig, skim_rate: float = 0.0, dimension: int = 100) -> Operations:
    """Of one question of the mean length, on word vectors of some values, in the published convention."""
    model = build_reader(config, torch.zeros(2, dimension), torch.zeros(2, 16))
    rates = dict.fromkeys([*model.sequences, *model.question_sequences], skim_rate)
    question, context = torch.tensor([11]), torch.tensor([141])
    return reader_operations(model, question, context, rates, published_convention=True)


def reductions(config: ReaderConfig, system: str, dimension: int = 100) -> tuple[float, float, float]:
    """Flop-r of a row: printed, by our count of the whole model, and of its LSTMs alone."""
    settings = (config.hidden_size, getattr(config, "small_size", None), getattr(config, "gamma", None))
    printed = published_value("squad", system, "flop_r", *settings)
    percent = published_value("squad", system, "skim_rate", *settings) or 0.0
    assert printed is not None
    standard = operations(BIDAF if "bidaf" in system else LSTM_ATT, dimension=dimension)
    ours = operations(config, percent / 100, dimension)
    return printed, standard.total / ours.total, standard.recurrent / (ours.recurrent + ours.decision)


def test_smaller_lstm_att() -> None:
    one_layer, wide_one_layer = (
        reductions(LSTM_ATT.model_copy(update={"num_layers": 1}), "lstm_att_1layer", dimension)
        for dimension in (100, 200)
    )
    half, wide_half = (
        reductions(LSTM_ATT.model_copy(update={"hidden_size": 50}), "lstm_att", dimension) for dimension in (100, 200)
    )
    for (printed, whole, _), (_, wide, _), name in (
        (one_layer, wide_one_layer, "1 layer, "),
        (half, wide_half, "d = 50, "),
    ):
        assert f"{name}{printed:.1f}x against {whole:.1f}x ({wide:.1f}x)" in LEGEND
    shares = [100 * (1 - 1 / whole) for _, whole, _ in (one_layer, wide_one_layer)]
    assert f"takes {shares[0]:.0f} % ({shares[1]:.0f} %) of the operations" in LEGEND


def test_sk_lstm_att() -> None:
    rows = [
        reductions(
            SkimLSTMAttConfig(architecture="skim_lstm_att", hidden_size=100, small_size=small, gamma=gamma),
            "sk_lstm_att",
            dimension,
        )
        for dimension in (100, 200)
        for small, gamma in ((0, 0.1), (20, 0.2))
    ]
    (least, our_least, _), (most, our_most, _), (_, wide_least, _), (_, wide_most, _) = rows
    ours = f"{our_least:.1f}x to {our_most:.1f}x ({wide_least:.1f}x to {wide_most:.1f}x)"
    assert f"{least:.1f}x to {most:.1f}x against {ours}" in LEGEND
    shares = [
        100 * (dense.attention + dense.output) / dense.total
        for dense in (operations(LSTM_ATT, dimension=dimension) for dimension in (100, 200))
    ]
    assert f"attention and output, {shares[0]:.0f} % ({shares[1]:.0f} %)." in LEGEND


def test_smaller_bidaf() -> None:
    (third, our_third, layers_third), (half, our_half, layers_half) = (
        reductions(BIDAF.model_copy(update={"hidden_size": size}), "bidaf") for size in (30, 50)
    )
    assert f"{third:.1f}x and {half:.1f}x against {our_third:.1f}x and {our_half:.1f}x" in LEGEND
    assert f"the LSTMs alone give {layers_third:.1f}x and {layers_half:.1f}x." in LEGEND
    dense = operations(BIDAF)
    assert f"{100 * (dense.characters + dense.highway) / dense.total:.0f} % of the operations at d = 100" in LEGEND


def test_sk_bidaf() -> None:
    (more, our_more, layers_more), (less, our_less, layers_less) = (
        reductions(SkimBiDAFConfig(architecture="skim_bidaf", hidden_size=100, small_size=50, gamma=gamma), "sk_bidaf")
        for gamma in (0.01, 0.001)
    )
    assert f"{more:.1f}x and {less:.1f}x against {our_more:.1f}x and {our_less:.1f}x" in LEGEND
    assert f"even the LSTMs alone give {layers_more:.1f}x and {layers_less:.1f}x" in LEGEND
    assert layers_more < more - 0.1 and layers_less < less - 0.1


def test_the_printed_values_of_question_answering_leave_a_quarter_outside_the_layers():
    """What the legend of that table says: 24 % of the operations are not saved by skimming."""
    rows = [row for row in published_values() if (row.system, row.metric) == ("sk_lstm_att", "flop_r")]
    assert len(rows) == 5
    for row in rows:
        percent = published_value("squad", row.system, "skim_rate", row.hidden_size, row.small_size, row.gamma)
        layers = 1 - percent / 100 * (1 - (row.small_size / row.hidden_size) ** 2)
        assert f"{1 / (0.24 + 0.76 * layers):.1f}" == f"{row.value:.1f}"
        assert f"{1 / (0.01 + 0.99 * layers):.1f}" != f"{row.value:.1f}"
