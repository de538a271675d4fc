"""BiDAF and Sk-BiDAF: the equations of BiDAF one value at a time, padding is not seen, only the layers differ."""

import math

import pytest
import torch
from torch import Tensor, nn

from skimrnn.config import BiDAFConfig, SkimBiDAFConfig
from skimrnn.data.questions import Padded
from skimrnn.models import BiDAF
from skimrnn.models.bidaf import average
from skimrnn.training.reading import build_reader

STANDARD = BiDAFConfig(architecture="bidaf", hidden_size=6)
SKIM = SkimBiDAFConfig(architecture="skim_bidaf", hidden_size=6, small_size=3, gamma=0.1)


def reader(config: BiDAFConfig | SkimBiDAFConfig) -> BiDAF:
    """A reader of 50 words and 40 spellings, in evaluation mode."""
    spellings = torch.randint(1, 30, (40, 16)) * (torch.arange(16) < torch.randint(1, 17, (40, 1)))
    model = build_reader(config, torch.randn(50, 7), spellings)
    assert isinstance(model, BiDAF)
    torch.nn.init.normal_(model.question_weight)
    return model.eval()


def padded(lengths: list[int]) -> Padded:
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    shape = (len(lengths), max(lengths))
    return Padded(torch.randint(2, 50, shape) * real, torch.randint(1, 40, shape) * real, torch.tensor(lengths))


def alone(texts: Padded, row: int) -> Padded:
    length = int(texts.lengths[row])
    return Padded(*(values[row : row + 1, :length] for values in texts[:2]), texts.lengths[row : row + 1])


@pytest.mark.parametrize("config", [STANDARD, SKIM], ids=lambda config: config.architecture)
def test_padding_does_not_reach_the_answers(config: BiDAFConfig | SkimBiDAFConfig, seed: int) -> None:
    model, questions, contexts = reader(config), padded([5, 2, 1]), padded([4, 9, 1])
    together = model(questions, contexts)
    assert together.start.shape == together.end.shape == (3, 9)
    for row, length in enumerate(contexts.lengths.tolist()):
        single = model(alone(questions, row), alone(contexts, row))
        for several, one in ((together.start, single.start), (together.end, single.end)):
            torch.testing.assert_close(several[row, :length], one[0], rtol=0, atol=1e-5)
            assert torch.isneginf(several[row, length:]).all()
        if config is SKIM:
            assert len(together.decisions.read) == len(model.sequences) == 8
            assert len(together.question_decisions.read) == len(model.question_sequences) == 2
            assert torch.equal(together.decisions.read[:, :length, row], single.decisions.read[:, :, 0])
        else:
            assert together.decisions is None and together.question_decisions is None and together.skim_loss() is None


def test_attention_flows_in_both_directions(seed: int) -> None:
    """Eqs. 1 to 4 of BiDAF, word by word."""
    model = reader(STANDARD)
    context, question = torch.randn(4, 1, 12), torch.randn(3, 1, 12)
    h, u = context[:, 0], question[:, 0]
    w = torch.cat([model.context_weight.weight[0], model.question_weight, model.match_weight])  # Of [h ; u ; h * u].
    s = torch.stack([torch.stack([w @ torch.cat([t, j, t * j]) for j in u]) for t in h])  # (T, J)
    b = torch.tensor([max(math.exp(v) for v in row) for row in s.tolist()])
    h_tilde = sum(weight * t for weight, t in zip(b / b.sum(), h, strict=True))
    expected = []
    for t, row in zip(h, s, strict=True):
        a = torch.exp(row) / torch.exp(row).sum()
        u_tilde = sum(weight * j for weight, j in zip(a, u, strict=True))
        expected.append(torch.cat([t, u_tilde, t * u_tilde, t * h_tilde]))
    real = torch.ones(4, 1, dtype=torch.bool)
    torch.testing.assert_close(
        model.attend(context, question, real, torch.tensor([3]))[:, 0], torch.stack(expected), rtol=1e-4, atol=1e-5
    )


def test_start_and_end_are_read_off_the_layers_that_they_should_be(seed: int) -> None:
    model, questions, contexts = reader(STANDARD), padded([3]), padded([5])
    seen: dict[str, Tensor] = {}

    def attend(*arguments: Tensor) -> Tensor:
        seen["G"] = BiDAF.attend(model, *arguments)
        return seen["G"]

    model.attend = attend  # type: ignore[method-assign]
    logits = model(questions, contexts)
    g = seen["G"]
    m, _ = model.modelling(g)
    start = model.start(torch.cat([g, m], dim=2))[..., 0]
    summary = (start.softmax(0)[..., None] * m).sum(0, keepdim=True).expand_as(m)
    m2, _ = model.output(torch.cat([g, m, summary, m * summary], dim=2))
    torch.testing.assert_close(logits.start.t(), start, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits.end.t(), model.end(torch.cat([g, m2], dim=2))[..., 0], rtol=1e-4, atol=1e-5)


def test_a_word_is_its_vector_and_the_best_of_each_filter_over_its_characters(seed: int) -> None:
    model = reader(STANDARD)
    text = padded([3])
    seen: list[Tensor] = []
    model.highway.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.embed(text)
    filters, bias = model.convolution.weight, model.convolution.bias  # (100, 16, 5)
    for place, (word, spelling) in enumerate(zip(text.tokens[0], text.spellings[0], strict=True)):
        characters = model.characters.weight[model.spellings[spelling]]  # (16, C)
        windows = [(filters * characters[k : k + 5].t()).sum(dim=(1, 2)) + bias for k in range(12)]
        best = torch.stack(windows).amax(0).clamp(min=0)
        expected = torch.cat([model.embedding.weight[word], best])
        torch.testing.assert_close(seen[0][place, 0], expected, rtol=1e-4, atol=1e-5)


def test_highway_layers_pass_a_share_of_their_inputs(seed: int) -> None:
    layer, inputs = reader(STANDARD).highway[0], torch.randn(4, 107)
    gate = 1 / (1 + torch.exp(-layer.gate(inputs)))
    expected = gate * layer.transform(inputs).clamp(min=0) + (1 - gate) * inputs
    torch.testing.assert_close(layer(inputs), expected, rtol=1e-4, atol=1e-5)


def test_an_average_leaves_masked_places_out(seed: int) -> None:
    logits, values = torch.randn(4, 2), torch.randn(4, 2, 3)
    logits[2:, 1] = -math.inf
    torch.testing.assert_close(average(logits[:2], values[:2])[0, 1], average(logits, values)[0, 1])


def test_only_the_layers_differ_between_bidaf_and_sk_bidaf(seed: int) -> None:
    standard, skim = reader(STANDARD), reader(SKIM)
    names = {name: tensor.shape for name, tensor in standard.state_dict().items()}
    skim_names = {name: tensor.shape for name, tensor in skim.state_dict().items()}
    assert names.items() <= skim_names.items()
    prefixes = {name.rsplit("weight", 1)[0].rsplit("bias", 1)[0] for name in skim_names.keys() - names.keys()}
    layers = ("contextual", "modelling", "output")
    assert prefixes == {f"{layer}.{cell}_" for layer in layers for cell in ("small", "decision")}
    assert all(isinstance(getattr(standard, layer), nn.LSTM) for layer in layers)


def test_word_vectors_stay_as_they_are_and_the_rest_learns(seed: int) -> None:
    model = reader(SKIM).train()
    logits = model(padded([5, 2]), padded([9, 6]))
    (logits.start[:, 0].sum() + logits.end[:, 1].sum() + logits.skim_loss()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {"embedding.weight"}
    assert all(parameter.grad.any() for name, parameter in model.named_parameters() if name not in without)


def test_the_skim_loss_is_the_mean_over_all_sequences(seed: int) -> None:
    logits = reader(SKIM)(padded([5, 2]), padded([9, 6]))
    means = [
        float(-part.log_probabilities[row, : int(length), text, 1].mean().detach())
        for part in (logits.decisions, logits.question_decisions)
        for row in range(len(part.read))
        for text, length in enumerate(part.lengths)
    ]
    assert float(logits.skim_loss().detach()) == pytest.approx(sum(means) / 20, rel=1e-5)
