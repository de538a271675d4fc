from pathlib import Path

import pytest
import torch
from torch import nn

from skimrnn import SkimLSTM
from skimrnn.benchmarks.speedup import WAYS, _sample, measure_speed
from skimrnn.data.prepare import Prepared
from skimrnn.errors import UserError
from skimrnn.files import write_tensors
from skimrnn.kernels import cpu
from tests.benchmarks.conftest import Once


def write_weights(path: Path, layer: nn.Module, vectors: torch.Tensor) -> Path:
    weights = {f"layer.{name}": tensor for name, tensor in layer.state_dict().items()}
    write_tensors(path, {"embedding.weight": vectors} | weights)
    return path


@pytest.fixture
def trained(prepared: Prepared, tmp_path: Path, seed: int) -> tuple[Path, SkimLSTM, torch.Tensor]:
    """The weights' file of a Skim-LSTM that reads the words with an even number, the layer and the words' vectors."""
    vectors = prepared.vectors()
    layer = SkimLSTM(vectors.shape[1], 24, small_size=4).eval()
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            layer.get_parameter(f"decision_{name}_l0").zero_()
        layer.decision_weight_ih_l0[0, 0] = 1.0
        vectors[:, 0] = 1.0
        vectors[1::2, 0] = -1.0
    return write_weights(tmp_path / "weights.safetensors", layer, vectors), layer, vectors


def test_every_way_is_timed_on_the_same_sample(prepared: Prepared, trained: tuple[Path, SkimLSTM, torch.Tensor]):
    path, *_ = trained
    speed = measure_speed(prepared, {"skim": {3: path}}, tokens=500, rounds=5)
    assert 500 <= speed.tokens < 500 + int(prepared.split("test").lengths.max())
    model = speed.models["skim"][3]
    assert set(model.lstm) == set(model.skim) == set(WAYS)
    assert all(0 < model.speedup(way) < 100 for way in WAYS)
    again = measure_speed(prepared, {"skim": {3: path}}, tokens=500, rounds=5)
    assert (again.texts, again.tokens, again.models["skim"][3].skim_rate) == (
        *(speed.texts, speed.tokens),
        model.skim_rate,
    )
    odd = (prepared.split("test").tokens % 2 == 1).double().mean()
    assert model.skim_rate == pytest.approx(float(odd), abs=0.1)


def test_each_time_is_that_of_the_layer_and_the_way_that_it_is_named_after(
    prepared: Prepared, trained: tuple[Path, SkimLSTM, torch.Tensor], once: Once, monkeypatch: pytest.MonkeyPatch
):
    frozen = cpu.Frozen.__call__
    monkeypatch.setattr(
        cpu.Frozen, "__call__", lambda self, x, *others: (x.dtype, frozen(self, x, *others).outputs[:, 0])
    )
    path, skim, vectors = trained
    lstm = nn.LSTM(skim.input_size, skim.hidden_size)
    lstm.load_state_dict(skim.state_dict(), strict=False)
    model = measure_speed(prepared, {"skim": {0: path}}, tokens=200, rounds=1).models["skim"][0]
    texts = _sample(prepared.split("test"), 200)
    for name, layer, times in (("lstm", lstm, model.lstm), ("skim", skim, model.skim)):
        assert times == {way: once.timings[f"{name} {way}"] for way in WAYS}
        for way in WAYS:
            for text, result in zip(texts, once.results[f"{name} {way}"], strict=True):
                given, outputs = (None, torch.from_numpy(result)) if way == "numpy" else result
                assert (given == torch.int64) == (way == "folded")  # Words, not their vectors.
                with torch.no_grad():
                    expected = layer(vectors[text][:, None])[0][:, 0]
                torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-6)


def test_weights_of_a_standard_lstm_are_refused(prepared: Prepared, tmp_path: Path):
    path = write_weights(tmp_path / "weights.safetensors", nn.LSTM(50, 24), prepared.vectors())
    with pytest.raises(UserError, match="not the weights of a Skim-LSTM classifier"):
        measure_speed(prepared, {"lstm": {0: path}}, tokens=500, rounds=5)
