"""LSTM+Att and Sk-LSTM+Att: padding is not seen, attention is an average of words, decoding finds the best span."""

import itertools
import math

import pytest
import torch

from skimrnn.config import LSTMAttConfig, SkimLSTMAttConfig
from skimrnn.data.questions import Padded
from skimrnn.models import LSTMAtt
from skimrnn.models.reader import MAX_SPAN, decode_independently, decode_jointly
from skimrnn.training.reading import build_reader

CONFIGS = [
    LSTMAttConfig(architecture="lstm_att", hidden_size=6, num_layers=2),
    SkimLSTMAttConfig(architecture="skim_lstm_att", hidden_size=6, num_layers=2, small_size=2, gamma=0.1),
    SkimLSTMAttConfig(architecture="skim_lstm_att", hidden_size=6, num_layers=1, small_size=0, gamma=0.1),
]

SPELLINGS = torch.zeros(50, 16)  # LSTM+Att does not look at characters.


def padded(tokens: torch.Tensor, lengths: list[int]) -> Padded:
    return Padded(tokens, tokens, torch.tensor(lengths))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.architecture}-{config.num_layers}")
def test_padding_does_not_reach_the_answers(config: LSTMAttConfig | SkimLSTMAttConfig, seed: int) -> None:
    model = build_reader(config, torch.randn(50, 7), SPELLINGS).eval()
    questions, contexts = torch.randint(2, 50, (3, 5)), torch.randint(2, 50, (3, 9))
    q_lengths, lengths = [5, 2, 1], [4, 9, 1]
    start, end, decisions, _ = model(padded(questions, q_lengths), padded(contexts, lengths))
    assert start.shape == end.shape == (3, 9)
    for row in range(3):
        alone = model(
            padded(questions[row : row + 1, : q_lengths[row]], q_lengths[row : row + 1]),
            padded(contexts[row : row + 1, : lengths[row]], lengths[row : row + 1]),
        )
        for together, single in ((start, alone.start), (end, alone.end)):
            torch.testing.assert_close(together[row, : lengths[row]], single[0], rtol=0, atol=1e-5)
            assert torch.isneginf(together[row, lengths[row] :]).all()
        if decisions is not None and alone.decisions is not None:
            assert torch.equal(decisions.read[:, : lengths[row], row], alone.decisions.read[:, :, 0])


def test_the_layers_see_the_word_its_average_of_the_question_and_their_product(seed: int) -> None:
    vectors = torch.randn(50, 4)
    model = build_reader(CONFIGS[0].model_copy(update={"num_layers": 1}), vectors, SPELLINGS).eval()
    for parameter in (model.question_weight, model.match_weight, *model.projection.parameters()):
        torch.nn.init.normal_(parameter)
    question, context = torch.tensor([[3, 4, 5, 0]]), torch.tensor([[6, 7]])
    logits = model(padded(question, [3]), padded(context, [2]))
    expected = []
    for x in vectors[context[0]]:
        keys = [(model.projection.weight @ q + model.projection.bias).relu() for q in (*vectors[[3, 4, 5]], x)]
        weights = [
            math.exp(float((model.question_weight @ key + model.match_weight @ (keys[3] * key)).detach()))
            for key in keys[:3]
        ]
        u = sum(weight * q for weight, q in zip(weights, vectors[[3, 4, 5]], strict=True)) / sum(weights)
        expected.append(torch.cat([x, u, x * u]))
    outputs, _ = model.layer(torch.stack(expected)[:, None])
    torch.testing.assert_close(
        torch.stack([logits.start[0], logits.end[0]], dim=1), model.output(outputs)[:, 0], rtol=1e-4, atol=1e-5
    )


def test_training_leaves_the_word_vectors_alone(seed: int) -> None:
    vectors = torch.randn(50, 4)
    model = build_reader(CONFIGS[0], vectors, SPELLINGS)
    logits = model(padded(torch.tensor([[3, 4]]), [2]), padded(torch.tensor([[4, 7, 3]]), [3]))
    logits.start.logsumexp(1).sum().backward()
    assert all((p.grad is None) == (name == "embedding.weight") for name, p in model.named_parameters())
    assert torch.equal(model.embedding.weight, vectors)


def test_dropout_leaves_the_attention_alone(seed: int) -> None:
    model = build_reader(CONFIGS[0], torch.randn(50, 7), SPELLINGS)
    batch = padded(torch.randint(2, 50, (3, 5)), [5, 2, 1]), padded(torch.randint(2, 50, (3, 9)), [4, 9, 1])
    dropped, whole = model.inputs(*batch), model.eval().inputs(*batch)
    kept = dropped != 0
    assert 0.7 < kept.float().mean() < 0.9  # 0.8 of 567 values, within three standard deviations and more.
    torch.testing.assert_close(dropped[kept] * (1 - CONFIGS[0].dropout), whole[kept], rtol=1e-6, atol=0)


@pytest.mark.parametrize("limit", [1, 3, MAX_SPAN])
def test_joint_decoding_finds_the_best_span_within_the_limit(limit: int, seed: int) -> None:
    start, end = torch.randn(20, 18), torch.randn(20, 18)
    start[:, 12:] = end[:, 12:] = -math.inf
    first, last = decode_jointly(start, end, limit)
    for row in range(20):
        spans = [(i, j) for i, j in itertools.product(range(12), repeat=2) if i <= j < i + limit]
        best = max(spans, key=lambda span: float(start[row, span[0]] + end[row, span[1]]))
        assert (int(first[row]), int(last[row])) == best


def test_independent_decoding_may_cross(seed: int) -> None:
    start, end = torch.zeros(1, 5), torch.zeros(1, 5)
    start[0, 3], end[0, 1] = 1.0, 1.0
    assert [int(place) for place in decode_independently(start, end)] == [3, 1]


def test_only_the_layer_differs_between_a_reader_and_its_skim_variant() -> None:
    standard, skim = (build_reader(config, torch.zeros(5, 3), SPELLINGS) for config in CONFIGS[:2])
    names = {name: tensor.shape for name, tensor in standard.state_dict().items()}
    skim_names = {name: tensor.shape for name, tensor in skim.state_dict().items()}
    assert names.items() <= skim_names.items()
    assert all(name.startswith(("layer.small_", "layer.decision_")) for name in skim_names.keys() - names.keys())
    assert isinstance(standard, LSTMAtt) and type(standard) is type(skim)
