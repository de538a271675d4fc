"""The benchmark's parts: all competitors compute one thing, names are true, and medians lie in their intervals."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from skimrnn import SkimLSTM
from skimrnn.benchmarks import latency
from skimrnn.benchmarks.competitors import COMPETITORS, UnavailableError, numpy_skim_lstm
from skimrnn.benchmarks.latency import Task, _folded, _ours, _questions, _reader, _set_skim_rate, _vectors, _words
from skimrnn.benchmarks.peaks import Peaks
from skimrnn.benchmarks.timing import summarise, time_together
from skimrnn.errors import UserError
from skimrnn.kernels import SkimSequence


def folded(layer, inputs):
    """Our kernels on a text of words, each of which stands in it once."""
    return _folded(layer, inputs[:, 0], torch.arange(len(inputs))[:, None])


def outputs_of(result):
    """What a timed function gives, as outputs (T, B, D)."""
    return result.outputs if isinstance(result, SkimSequence) else torch.as_tensor(result).view(len(result), 1, -1)


LSTMS = COMPETITORS | {"ours": _ours, "folded": folded}


@pytest.mark.parametrize("name", [name for name in LSTMS if name != "torch.compile"])
def test_competitors_compute_the_same(name, seed, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    lstm, inputs = nn.LSTM(5, 7), torch.randn(9, 1, 5)
    try:
        run = LSTMS[name](lstm, inputs)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    torch.testing.assert_close(outputs_of(run()), lstm(inputs)[0].detach(), rtol=0, atol=1e-6)


def test_numpy_that_cannot_be_pinned_says_what_to_do(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(UserError, match=r"^set OPENBLAS_NUM_THREADS=\d+, or pip install threadpoolctl$"):
        numpy_skim_lstm(SkimLSTM(5, 7, small_size=3), torch.randn(9, 1, 5))


@pytest.mark.parametrize(("make", "threshold"), [(numpy_skim_lstm, 0.45), (_ours, 0.5), (folded, 0.5)])
def test_every_way_of_skimming_computes_what_the_layer_does(make, threshold, seed, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    layer, inputs = SkimLSTM(5, 7, small_size=3, threshold=threshold).eval(), 3 * torch.randn(60, 1, 5)
    with torch.no_grad():
        expected, _, decisions = layer(inputs, return_decisions=True)
    assert 0 < int(decisions.read.sum()) < 60
    torch.testing.assert_close(outputs_of(make(layer, inputs)()), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("threshold", "read"), [(0.0, 60), (1.0, 0)])
@pytest.mark.parametrize("small_size", [0, 3])
def test_numpy_reads_all_at_threshold_0_and_skims_all_at_1(threshold, read, small_size, seed, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    layer, inputs = SkimLSTM(5, 7, small_size=small_size, threshold=threshold).eval(), 3 * torch.randn(60, 1, 5)
    with torch.no_grad():
        # In float32 p(read) is 0 or 1 itself at either end: neither may be taken for the other side of the threshold.
        layer.decision_bias_ih_l0.copy_(torch.tensor([-200.0, 200.0] if read else [200.0, -200.0]))
        expected, _, decisions = layer(inputs, return_decisions=True)
    assert decisions.read.sum() == read
    torch.testing.assert_close(outputs_of(numpy_skim_lstm(layer, inputs)()), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["skimming", "batched"])
def test_what_is_timed_as_skimming_skims_at_the_set_rate_and_nothing_else_does(name, seed, monkeypatch):
    """A token is skimmed where the part of the state that the small cell does not write stays as it was."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    for constant, value in {"SIZES": (30,), "RATES": (0.5,), "STEPS": 40}.items():
        monkeypatch.setattr(latency, constant, value)
    for task in latency.BENCHMARKS[name]():
        small, rate = task.setting["small_size"], task.setting["skim_rate"]
        for function in task.functions.keys() - {"torch"}:
            outputs = outputs_of(task.functions[function]())
            before = torch.cat([torch.zeros_like(outputs[:1]), outputs[:-1]])
            real = outputs.any(dim=2)
            skimmed = (outputs == before)[..., small:].all(dim=2) & real
            assert real.sum() == task.tokens
            expected = rate if function.startswith("skim") else 0
            assert skimmed.sum() == round(expected * task.tokens), (function, task.setting)


def test_the_interval_of_a_median_covers_it():
    generator = np.random.default_rng(0)
    covered = sum(t.low <= 0.0 <= t.high for t in (summarise(list(generator.normal(size=31))) for _ in range(1000)))
    assert 930 <= covered <= 995


def test_functions_are_timed_in_turns():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    timings = time_together(functions, rounds=6, seconds_a_sample=1e-9, warm_up=1)
    # Each sample after a call that is not timed.
    assert "".join(calls[6:]) == "".join(2 * name for name in "abcbcacababcbcacab")
    assert all(len(t.samples) == 6 and t.low <= t.median <= t.high for t in timings.values())


def test_every_sweep_times_the_same_tasks(monkeypatch):
    """Samples of all sweeps stand together, and memory is measured once."""
    made, measured = [], []

    def tasks():
        for size in (1, 2):
            drawn = float(torch.rand(()))  # as skim rates and lengths are
            made.append((size, drawn))
            memory = {"sleep": lambda size=size: measured.append(size) or 4.0 * size}
            functions = {"sleep": lambda: None, "wake": lambda: None}
            yield Task({"size": size, "drawn": drawn}, 10, functions, {}, memory, {"dream": f"not at {size}"})

    monkeypatch.setitem(latency.BENCHMARKS, "tiny", tasks)
    peaks = iter([Peaks(flops=2.0, bandwidth={8: 1.0}), Peaks(flops=1.0, bandwidth={8: 5.0})] * 2)
    monkeypatch.setattr(latency, "measure_peaks", lambda sizes: next(peaks))
    told = []
    report = latency.run_benchmarks(["tiny"], 6, told.append)
    assert made[:2] == made[2:4] == made[4:] and len(made) == len(told) == 6
    assert [(m.name, m.setting["size"], m.peak_memory_mib) for m in report.measurements] == [
        ("sleep", 1, 4.0),
        ("wake", 1, None),
        ("sleep", 2, 8.0),
        ("wake", 2, None),
    ]
    assert all(len(m.timing.samples) == 6 for m in report.measurements)
    assert measured == [1, 2] and report.skipped == {"dream": "not at 2"}
    assert report.peaks == Peaks(flops=2.0, bandwidth={8: 5.0})


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.95, 1.0])
def test_texts_are_skimmed_at_the_set_rate(rate, seed):
    lengths = torch.tensor([40, 7, 13])
    real = torch.arange(40)[:, None] < lengths
    words = _words(rate, lengths)
    assert words.shape == (40, 3)
    assert int((_vectors()[words][..., 0] < 0)[real].sum()) == round(rate * 60)


@pytest.mark.parametrize("rate", [0.3, 0.9])
def test_each_lstm_of_a_reader_skims_at_the_set_rate(rate, seed):
    model, batch = _reader("skim", 20).eval(), _questions(4, 20, 30)
    words = batch.contexts.tokens  # None twice: equal words of one text are skimmed together.
    words.copy_(torch.arange(2, 2 + words.numel()).view_as(words))
    tokens = int(batch.contexts.lengths.sum())
    assert _set_skim_rate(model, batch, rate) == pytest.approx(rate, abs=1 / tokens)
    read = model(batch.questions, batch.contexts).decisions.read.sum(dim=(1, 2))
    assert (1 - read / tokens).tolist() == pytest.approx([rate] * 4, abs=1 / tokens)
