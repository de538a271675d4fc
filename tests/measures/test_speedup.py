from pathlib import Path

import pytest
import torch
from torch import nn

from skimrnn import SkimLSTM
from skimrnn.data.prepare import Prepared
from skimrnn.errors import UserError
from skimrnn.files import write_tensors
from skimrnn.measures.speedup import WAYS, measure_speed


def write_weights(path: Path, layer: nn.Module, vectors: torch.Tensor) -> Path:
    weights = {f"layer.{name}": tensor for name, tensor in layer.state_dict().items()}
    write_tensors(path, {"embedding.weight": vectors} | weights)
    return path


def test_every_way_is_timed_on_the_same_sample(prepared: Prepared, tmp_path: Path):
    vectors = prepared.vectors()
    layer = SkimLSTM(vectors.shape[1], 24, 4)
    with torch.no_grad():  # Read the words with an even number.
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            layer.get_parameter(f"decision_{name}_l0").zero_()
        layer.decision_weight_ih_l0[0, 0] = 1.0
        vectors[:, 0] = 1.0
        vectors[1::2, 0] = -1.0
    path = write_weights(tmp_path / "weights.safetensors", layer, vectors)
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


def test_weights_of_a_standard_lstm_are_refused(prepared: Prepared, tmp_path: Path):
    path = write_weights(tmp_path / "weights.safetensors", nn.LSTM(50, 24), prepared.vectors())
    with pytest.raises(UserError, match="not the weights of a Skim-LSTM classifier"):
        measure_speed(prepared, {"lstm": {0: path}}, tokens=500, rounds=5)
