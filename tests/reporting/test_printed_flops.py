"""What the legend of the question answering table says of the printed Flop-r, against our count at the same sizes."""

import torch

from skimrnn.config import BiDAFConfig, LSTMAttConfig, ReaderConfig, SkimBiDAFConfig, SkimLSTMAttConfig
from skimrnn.measures.flops import Operations, reader_operations
from skimrnn.published import published_value, published_values
from skimrnn.reporting.reading_table import LEGEND
from skimrnn.training.reading import build_reader

LSTM_ATT = LSTMAttConfig(architecture="lstm_att", hidden_size=100)
BIDAF = BiDAFConfig(architecture="bidaf", hidden_size=100)


def operations(config: ReaderConfig, skim_rate: float = 0.0) -> Operations:
    """Of one question of the mean length, on word vectors of 100 values, in the published convention."""
    model = build_reader(config, torch.zeros(2, 100), torch.zeros(2, 16))
    rates = dict.fromkeys([*model.sequences, *model.question_sequences], skim_rate)
    question, context = torch.tensor([11]), torch.tensor([141])
    return reader_operations(model, question, context, rates, published_convention=True)


def reductions(config: ReaderConfig, system: str) -> tuple[float, float, float]:
    """Flop-r of a row: printed, by our count of the whole model, and of its LSTMs alone."""
    settings = (config.hidden_size, getattr(config, "small_size", None), getattr(config, "gamma", None))
    printed = published_value("squad", system, "flop_r", *settings)
    percent = published_value("squad", system, "skim_rate", *settings) or 0.0
    assert printed is not None
    standard = operations(BIDAF if "bidaf" in system else LSTM_ATT)
    ours = operations(config, percent / 100)
    return printed, standard.total / ours.total, standard.recurrent / (ours.recurrent + ours.decision)


def test_smaller_lstm_att() -> None:
    one_layer = reductions(LSTM_ATT.model_copy(update={"num_layers": 1}), "lstm_att_1layer")
    half = reductions(LSTM_ATT.model_copy(update={"hidden_size": 50}), "lstm_att")
    for (printed, whole, _), name in ((one_layer, "1 layer, "), (half, "d = 50, ")):
        assert f"{name}{printed:.1f}x against {whole:.1f}x" in LEGEND
    assert f"takes {100 * (1 - 1 / one_layer[1]):.0f} % of the operations" in LEGEND


def test_sk_lstm_att() -> None:
    rows = [
        reductions(
            SkimLSTMAttConfig(architecture="skim_lstm_att", hidden_size=100, small_size=small, gamma=gamma),
            "sk_lstm_att",
        )
        for small, gamma in ((0, 0.1), (20, 0.2))
    ]
    (least, our_least, _), (most, our_most, _) = rows
    assert f"{least:.1f}x to {most:.1f}x against {our_least:.1f}x to {our_most:.1f}x" in LEGEND
    dense = operations(LSTM_ATT)
    share = (dense.attention + dense.output) / dense.total
    assert f"attention and output, {100 * share:.0f} %." in LEGEND


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
