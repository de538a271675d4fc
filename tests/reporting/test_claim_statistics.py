"""Each statistic of the claims on records and measurements whose truth is known, with its sign."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skimrnn.analysis.artefact import Packed
from skimrnn.benchmarks import gpu, latency
from skimrnn.benchmarks.peaks import Peaks
from skimrnn.benchmarks.speedup import ModelSpeed
from skimrnn.benchmarks.timing import summarise
from skimrnn.config import Config, read_config
from skimrnn.files import read_json, write_json
from skimrnn.measures.flops import flop_reduction
from skimrnn.provenance import environment
from skimrnn.reporting.claims import Finding, Trial, try_claims
from skimrnn.reporting.estimates import Estimate, mean_of, over_repeats
from skimrnn.reporting.evidence import Evidence, read_evidence
from skimrnn.reporting.statistics import STATISTICS
from tests.conftest import ROOT
from tests.reporting.analyses import EXAMPLES, store_analysed
from tests.reporting.conftest import build_speed

SIZES, RATES = (100, 200), (0.5, 0.9)
MICROSECONDS = 3.0  # that a standard LSTM takes for a token, in every way and size


@pytest.fixture(scope="module")
def config() -> Config:
    whole = read_config(ROOT / "config" / "paper.yaml")
    kept = ["lstm", "skim-5-0.01", "skim-5-0.02", "bidaf", "sk_bidaf-50-0.01", "sk_bidaf-50-0.001"]
    values = whole.model_dump() | {
        "datasets": {name: whole.datasets[name] for name in ("sst", "squad")},
        "models": {name: whole.models[name] for name in kept},
    }
    return Config.model_validate(values)


def found(evidence: Evidence, statistic: str, dataset: str = "") -> Finding:
    """A statistic with its verdict."""
    trials: list[Trial] = try_claims(evidence)
    part = next(f.part for trial in trials for f in trial.findings if f.part.statistic == statistic)
    return Finding(part, dataset or None, STATISTICS[part.statistic](evidence, dataset))


def numbers_after(words: str, note: str) -> list[float]:
    """The numbers with a sign that follow some words of a note, up to its next part."""
    return [float(number) for number in re.findall(r"[+-][\d.]+", note.partition(words)[2].partition(";")[0])]


def store(
    folder: Path, config: Config, dataset: str, scores: dict[str, float], seeds: tuple[int, ...] = (0, 1)
) -> None:
    for model, score in scores.items():
        for seed in seeds:
            store_analysed(folder, config, dataset, model, seed, score)


def change(folder: Path, model: str, seed: int, **parts: dict[str, float]) -> None:
    """Change parts of a record of SST."""
    path = folder / "paper" / "sst" / model / f"{seed}.json"
    record = read_json(path)
    write_json(path, record | {name: record[name] | values for name, values in parts.items()})


def keep_half(folder: Path, *models: str) -> None:
    """Say of the first two seeds of models of SST that every second example was swept."""
    for path in (folder / "paper" / "sst" / model / f"{seed}.analysis.json" for model in models for seed in (0, 1)):
        analysis = read_json(path)
        sweep = analysis["skim"]["sweep"]
        sweep["included"] = Packed.pack(np.arange(EXAMPLES) % 2 == 0, "bit").model_dump()
        write_json(path, analysis)


def benchmark(fraction: dict[tuple[int, str], float]) -> latency.Report:
    """A benchmark in which that fraction of Flop-r comes out as speed-up, by d and way."""
    measurements = []
    for (size, way), share in fraction.items():
        for rate in (0.0, *RATES, 1.0):
            setting = {"hidden_size": size, "small_size": 10, "skim_rate": rate}
            skim = MICROSECONDS / (share * flop_reduction(rate, size, 10).exact_count)
            for name, microseconds in (("lstm", MICROSECONDS), ("skim", skim)):
                timing = summarise([300e-6 * microseconds] * 9)
                measurements.append(
                    latency.Measurement(
                        benchmark="skimming",
                        name=f"{name} {way}".strip(),
                        setting=setting,
                        tokens=300,
                        timing=timing,
                        cost=None,
                        peak_memory_mib=None,
                    )
                )
    peaks = Peaks(flops=1e11, bandwidth={})
    return latency.Report(
        environment=environment(), isa="plain", sweeps=3, peaks=peaks, skipped={}, measurements=measurements
    )


def with_benchmark(config: Config, folder: Path, fraction: dict[tuple[int, str], float]) -> Evidence:
    return replace(read_evidence(config, folder), benchmark=benchmark(fraction))


def test_the_largest_flop_r_is_that_of_a_model_that_keeps_the_accuracy(config: Config, tmp_path: Path):
    store(tmp_path, config, "sst", {"lstm": 0.8, "skim-5-0.01": 0.795, "skim-5-0.02": 0.78})
    for seed, reduction in ((0, 3.0), (1, 3.2)):
        change(tmp_path, "skim-5-0.01", seed, flop_reduction={"published_convention": reduction, "exact_count": 2.0})
        change(tmp_path, "skim-5-0.02", seed, flop_reduction={"published_convention": 9.0, "exact_count": 5.0})
    estimate = found(read_evidence(config, tmp_path), "flop_reduction_at_accuracy", "sst").estimate
    assert estimate.value == pytest.approx(3.1) and estimate.count == 2
    # Its accuracy is half a point below in both seeds.
    kept = "skim-5-0.01, accuracy -0.5 [-0.5, -0.5] points; by the exact count 2.0"
    assert estimate.note.startswith(kept)


@pytest.mark.parametrize("sampled", [False, True])
def test_the_largest_flop_r_at_any_threshold_is_beside_it(sampled: bool, config: Config, tmp_path: Path):
    for model, at_one in (("lstm", 0.0), ("skim-5-0.01", 0.7), ("skim-5-0.02", 0.5)):
        for seed in (0, 1):
            store_analysed(tmp_path, config, "sst", model, seed, 0.8, at_one=at_one)
    if sampled:
        keep_half(tmp_path, "skim-5-0.01", "skim-5-0.02")
    evidence = read_evidence(config, tmp_path)
    # A fourteenth of the way from 80 to 70 it has lost less than a point, two of them more.
    half = np.arange(EXAMPLES) % (1 + sampled) == 0
    standard = [evidence.analyses["sst", "lstm", seed].outcomes["accuracy"].unpack()[half].mean() for seed in (0, 1)]
    scores = np.array(
        [[p.scores["accuracy"] for p in evidence.analyses["sst", "skim-5-0.01", s].skim.sweep.points] for s in (0, 1)]
    )
    lost = 100 * (scores - np.array(standard)[:, None])
    place = int(np.flatnonzero(lost.mean(axis=0)[1:-1] >= -1).max()) + 1
    note = found(evidence, "flop_reduction_at_accuracy", "sst").estimate.note
    threshold = evidence.analyses["sst", "skim-5-0.01", 0].skim.sweep.points[place].threshold
    expected = f"(skim-5-0.01 at threshold {threshold:g}, accuracy {mean_of(lost[:, place])} points)"
    assert f"{10 ** (place / 14):.2f}x {expected}" in note
    assert note.endswith("examples") is sampled


@pytest.mark.parametrize(("seeds", "verdict"), [((0,), "not tested"), ((0, 1), "contradicted")])
def test_where_none_keeps_the_accuracy_seeds_are_counted(
    seeds: tuple[int, ...], verdict: str, config: Config, tmp_path: Path
):
    store(tmp_path, config, "sst", {"lstm": 0.8, "skim-5-0.01": 0.7, "skim-5-0.02": 0.7}, seeds)
    finding = found(read_evidence(config, tmp_path), "flop_reduction_at_accuracy", "sst")
    assert (finding.estimate.value, finding.estimate.count, finding.verdict) == (1.0, len(seeds), verdict)


def test_an_accuracy_that_is_kept_has_no_more_seeds_than_the_standard_lstm(config: Config, tmp_path: Path):
    store(tmp_path, config, "sst", {"skim-5-0.01": 0.8})
    store(tmp_path, config, "sst", {"lstm": 0.8}, (0,))
    finding = found(read_evidence(config, tmp_path), "flop_reduction_at_accuracy", "sst")
    assert (finding.estimate.count, finding.verdict) == (1, "not tested")


@pytest.mark.parametrize(("more", "verdict"), [(0.2, "supported"), (-0.2, "contradicted")])
def test_a_larger_gamma_is_held_against_the_next_smaller_one(more: float, verdict: str, config: Config, tmp_path: Path):
    store(tmp_path, config, "sst", {"skim-5-0.01": 0.8, "skim-5-0.02": 0.8})
    for seed in (0, 1):
        change(tmp_path, "skim-5-0.01", seed, test={"skim_rate": 0.4 + 0.01 * seed})
        change(tmp_path, "skim-5-0.02", seed, test={"skim_rate": 0.4 + more})
    finding = found(read_evidence(config, tmp_path), "gamma_effect", "sst")
    assert finding.estimate.value == pytest.approx(100 * (more - 0.005)) and finding.verdict == verdict
    assert finding.estimate.note == f"skims less in {int(more < 0)} of 1 pair of neighbours"


def gamma_effects(folder: Path, effects: dict[int, list[float]]) -> Estimate:
    """Claim 3's estimate where a larger gamma skims by so much more, by d' and seed, all in shares of the tokens."""
    whole = read_config(ROOT / "config" / "paper.yaml")
    names = {size: (f"skim-{size}-0.01", f"skim-{size}-0.02") for size in effects}
    kept = {name: whole.models[name] for both in names.values() for name in both}
    config = Config.model_validate(whole.model_dump() | {"datasets": {"sst": whole.datasets["sst"]}, "models": kept})
    for size, found in effects.items():
        for seed, more in enumerate(found):
            for name, rate in zip(names[size], (0.1, 0.1 + more), strict=True):
                store_analysed(folder, config, "sst", name, seed, 0.8)
                change(folder, name, seed, test={"skim_rate": rate})
    return STATISTICS["gamma_effect"](read_evidence(config, folder), "sst")


def test_the_interval_is_students_over_the_means_of_seeds(tmp_path: Path):
    effects = {5: [0.30, 0.35, 0.28], 10: [0.50, 0.61, 0.55]}
    estimate = gamma_effects(tmp_path, effects)
    seeds = 100 * np.mean([*effects.values()], axis=0)
    assert estimate.value == pytest.approx(seeds.mean())
    assert estimate.interval == pytest.approx(over_repeats(seeds))


def test_what_sets_pairs_of_models_apart_does_not_set_seeds_apart(tmp_path: Path):
    """Where one pair lacks a seed, its level moves the mean, and not how wide the interval is."""
    near, far = (
        gamma_effects(tmp_path / str(more), {5: [0.30, 0.35, 0.28], 10: [0.2 + more, 0.25 + more]}) for more in (0, 0.4)
    )
    assert far.value - near.value == pytest.approx(100 * 0.4 / 2)
    assert np.ptp(far.interval) == pytest.approx(np.ptp(near.interval))
    assert near.count == 3


@pytest.mark.parametrize(("lost", "verdict"), [(-0.1, "supported"), (0.1, "contradicted")])
def test_bidafs_cost_is_the_mean_over_settings(lost: float, verdict: str, config: Config, tmp_path: Path):
    store(tmp_path, config, "squad", {"bidaf": 0.7, "sk_bidaf-50-0.01": 0.7 - lost, "sk_bidaf-50-0.001": 0.7 - lost})
    finding = found(read_evidence(config, tmp_path), "bidaf_cost", "squad")
    assert finding.estimate.value == pytest.approx(-100 * lost) and finding.verdict == verdict


def with_smaller_readers(config: Config, **smaller: dict[str, int]) -> Config:
    """A reader that skims, d = 100 in two layers, and standard ones that differ in size."""
    skim = (
        read_config(ROOT / "config" / "paper.yaml").models["sk_lstm_att-20-0.1"].model_copy(update={"init_from": None})
    )
    models = {"skim": skim} | {name: skim.standard.model_copy(update=changes) for name, changes in smaller.items()}
    squad = {"squad": config.datasets["squad"]}
    return Config.model_validate(config.model_dump() | {"datasets": squad, "models": models})


def store_reduced(folder: Path, config: Config, reductions: dict[str, float], seeds: tuple[int, ...] = (0, 1)) -> None:
    """Readers with an F1 of 0.7, the smaller at a Flop-r by the exact count, and at 2.0 by the other."""
    for seed in seeds:
        store_analysed(folder, config, "squad", "skim", seed, 0.7, at_one=0.5)
        path = folder / "paper" / "squad" / "skim" / f"{seed}.analysis.json"
        analysis = read_json(path)
        for point in analysis["skim"]["sweep"]["points"]:
            point["flop_reduction"]["published_convention"] **= 2
        write_json(path, analysis)
        for model, reduction in reductions.items():
            store_analysed(folder, config, "squad", model, seed, 0.7)
            path = folder / "paper" / "squad" / model / f"{seed}.json"
            flops = {"exact_count": reduction, "published_convention": 2.0}
            write_json(path, read_json(path) | {"flop_reduction": flops})


@pytest.mark.parametrize(
    ("changes", "layers", "size"),
    [
        ({"num_layers": 1}, True, False),
        ({"hidden_size": 50}, False, True),
        ({"num_layers": 3}, False, False),
        ({"num_layers": 1, "hidden_size": 50}, False, False),
    ],
)
def test_a_shrunk_reader_has_fewer_layers_or_a_smaller_d(
    changes: dict[str, int], layers: bool, size: bool, config: Config, tmp_path: Path
):
    readers = with_smaller_readers(config, other=changes)
    store_reduced(tmp_path, readers, {"other": 2.0})
    evidence = read_evidence(readers, tmp_path)
    for statistic, counts in (("skimming_beats_fewer_layers", layers), ("skimming_beats_smaller_size", size)):
        finding = found(evidence, statistic, "squad")
        assert (finding.estimate is not None) is counts
        if counts:
            assert finding.estimate.count == 2
            # The skimming one falls from 70 to 50 along the logarithm of its Flop-r, which runs to 10, or to 100.
            assert finding.estimate.value == pytest.approx(-20 * np.log10(2.0), abs=0.5)
            by_published, low, high = numbers_after("by the published convention", finding.estimate.note)
            assert low < by_published < high
            assert by_published == pytest.approx(-20 * np.log10(2.0) / 2, abs=0.5)


def test_a_smaller_reader_beyond_the_sweep_is_named_and_not_taken_for_one_that_was_not_run(
    config: Config, tmp_path: Path
):
    readers = with_smaller_readers(config, small={"hidden_size": 50}, tiny={"hidden_size": 30})
    store_reduced(tmp_path, readers, {"tiny": 9.0})
    finding = found(read_evidence(readers, tmp_path), "skimming_beats_smaller_size", "squad")
    assert (finding.numbers, finding.verdict) == ("out of reach", "not tested")
    note = finding.estimate.note
    assert note.startswith("tiny (Flop-r 9.00) lies beyond a sweep of skim, whose nearest point (8.48) lies -")
    # There the curve, which starts at the small one's F1, has fallen along the logarithm of its Flop-r.
    assert numbers_after("lies", note.partition("nearest")[2])[0] == pytest.approx(-20 * np.log10(8.48), abs=0.2)
    store_reduced(tmp_path, readers, {"small": 3.0})
    finding = found(read_evidence(readers, tmp_path), "skimming_beats_smaller_size", "squad")
    assert finding.verdict == "contradicted" and finding.estimate.count == 2
    assert finding.estimate.runs == ("squad/skim/0", "squad/small/0", "squad/skim/1", "squad/small/1")
    note = finding.estimate.note
    assert note.startswith("tiny (Flop-r 9.00) lies beyond a sweep of skim, whose nearest point ")
    (nearest,) = numbers_after("lies", note.partition("nearest")[2])
    with_it, low, high = numbers_after("in its place", note)
    assert low <= with_it <= high
    assert with_it == pytest.approx(np.mean([nearest, finding.estimate.value]), abs=0.11)


def test_seeds_count_that_one_pair_of_models_has(config: Config, tmp_path: Path):
    readers = with_smaller_readers(config, small={"hidden_size": 50}, tiny={"hidden_size": 30})
    store_reduced(tmp_path, readers, {"small": 2.0}, seeds=(0,))
    store_reduced(tmp_path, readers, {"tiny": 3.0}, seeds=(1,))
    finding = found(read_evidence(readers, tmp_path), "skimming_beats_smaller_size", "squad")
    assert (finding.estimate.count, finding.verdict) == (1, "not tested")


def test_accuracy_is_given_for_each_setting_alone(config: Config, tmp_path: Path):
    store(tmp_path, config, "sst", {"lstm": 0.8, "skim-5-0.01": 0.79, "skim-5-0.02": 0.76})
    estimate = found(read_evidence(config, tmp_path), "accuracy_kept", "sst").estimate
    noted = re.fullmatch(r"of γ = 0.01 alone (\S+) \[.*?\], of γ = 0.02 alone (\S+) \[.*?\]", estimate.note)
    assert noted and [*map(float, noted.groups())] == pytest.approx([-1.0, -4.0])
    assert estimate.value == pytest.approx(-2.5)


def test_runs_of_one_model_are_no_independent_ones(config: Config, tmp_path: Path):
    """Beside the interval over runs stands the one over the means of models."""
    for model, at_one in (("skim-5-0.01", 0.7), ("skim-5-0.02", 0.3)):
        for seed in (0, 1, 2):
            store_analysed(tmp_path, config, "sst", model, seed, 0.8, at_one=at_one)
    estimate = found(read_evidence(config, tmp_path), "threshold_is_smooth", "sst").estimate
    falls = np.array([10 / 14, 50 / 14])
    noted = numbers_after("over settings", estimate.note)
    assert noted == pytest.approx(over_repeats(-falls), abs=2)  # 12.7 times the rounding of a fall, a quarter point.
    assert noted[0] < estimate.interval[0] and estimate.interval[1] < noted[1]


def test_a_sweep_over_a_sample_is_called_one(config: Config, tmp_path: Path):
    store(tmp_path, config, "sst", {"skim-5-0.01": 0.8})
    statistics = "threshold_moves_flops", "threshold_is_smooth"
    notes = [found(read_evidence(config, tmp_path), s, "sst").estimate.note for s in statistics]
    assert notes[0] == "" and not notes[1].endswith("examples")
    keep_half(tmp_path, "skim-5-0.01")
    for statistic in statistics:
        half = f"on a sample, {EXAMPLES // 2:,} of {EXAMPLES:,} examples"
        assert found(read_evidence(config, tmp_path), statistic, "sst").estimate.note.endswith(half)


def test_the_step_of_the_largest_fall_is_named(config: Config, tmp_path: Path):
    store(tmp_path, config, "sst", {"skim-5-0.01": 0.8}, (0, 1, 2))
    for seed, steep in ((0, 0.875), (1, 0.875), (2, 0.5)):
        path = tmp_path / "paper" / "sst" / "skim-5-0.01" / f"{seed}.analysis.json"
        analysis = read_json(path)
        sweep = analysis["skim"]["sweep"]
        outcomes = np.tile(np.arange(EXAMPLES) < 0.8 * EXAMPLES, (len(sweep["points"]), 1))
        for place, point in enumerate(sweep["points"]):
            # One point in each step, three more after the steep one.
            right = 320 - 4 * place - (12 if point["threshold"] > steep else 0)
            outcomes[place] = np.arange(EXAMPLES) < right
            point["scores"] = {"accuracy": right / EXAMPLES}
        sweep["outcomes"] = {"accuracy": Packed.pack(outcomes, "bit").model_dump()}
        write_json(path, analysis)
    estimate = found(read_evidence(config, tmp_path), "threshold_is_smooth", "sst").estimate
    assert estimate.value == pytest.approx(-4)
    before, after = 10 ** (np.array([12, 13]) / 14)
    assert estimate.note.startswith(
        f"in 2 of 3 runs from 0.875 to 0.95, where Flop-r goes from {before:.1f} to {after:.1f}; in the other steps "
    )
    assert numbers_after("other steps", estimate.note)[0] == pytest.approx(-2, abs=0.05)  # -1, -1 and -4.


@pytest.mark.parametrize(("largest", "verdict"), [(0.9, "supported"), (1.2, "contradicted")])
def test_speed_up_is_held_against_flop_r_where_some_are_read_and_some_skimmed(
    largest: float, verdict: str, config: Config, tmp_path: Path
):
    evidence = with_benchmark(config, tmp_path, {(100, ""): 0.6, (200, "folded"): largest})
    finding = found(evidence, "speedup_below_flops")
    assert finding.estimate.value == pytest.approx(1 - largest) and finding.verdict == verdict
    assert finding.estimate.count == 2 * len(RATES) and "d = 200" in finding.estimate.note
    assert "NumPy" not in finding.estimate.note
    evidence = with_benchmark(config, tmp_path, {(100, "numpy"): 0.7, (200, "folded"): largest})
    assert found(evidence, "speedup_below_flops").estimate.note.endswith("of NumPy, the paper's way, 0.30")


@pytest.mark.parametrize(("largest", "verdict"), [(0.9, "supported"), (0.4, "contradicted")])
def test_the_gap_is_that_of_the_smallest_and_the_largest_d(
    largest: float, verdict: str, config: Config, tmp_path: Path
):
    shares = {(100, ""): 0.6, (100, "folded"): 0.6, (200, ""): largest, (200, "folded"): largest}
    finding = found(with_benchmark(config, tmp_path, shares), "gap_closes")
    assert finding.estimate.value == pytest.approx(largest - 0.6) and finding.verdict == verdict
    assert finding.estimate.note == f"d = 100 to 200; demand {largest - 0.6:+.2f}, folded {largest - 0.6:+.2f}"


@pytest.mark.parametrize(("numpy", "verdict"), [(0.3, "supported"), (0.9, "contradicted")])
def test_our_kernels_are_held_against_numpy(numpy: float, verdict: str, config: Config, tmp_path: Path):
    shares = {(size, way): numpy if way else 0.6 for size in SIZES for way in ("", "numpy")}
    finding = found(with_benchmark(config, tmp_path, shares), "kernels_beat_numpy")
    assert finding.estimate.value == pytest.approx(0.6 - numpy) and finding.verdict == verdict
    assert finding.estimate.count == len(SIZES) * len(RATES)


@pytest.mark.parametrize(("numpy", "verdict"), [(1.0, "supported"), (3.0, "contradicted")])
def test_and_on_test_texts(numpy: float, verdict: str, config: Config, tmp_path: Path):
    store(tmp_path, config, "sst", {"lstm": 0.8, "skim-5-0.01": 0.8})
    evidence = read_evidence(config, tmp_path)
    lstm = {way: summarise([1.0]) for way in ("demand", "numpy")}
    timed = ModelSpeed(skim_rate=0.5, lstm=lstm, skim={"demand": summarise([1 / 2.0]), "numpy": summarise([1 / numpy])})
    results = replace(
        evidence.results["classification"], speeds={"sst": build_speed("sst", {"skim-5-0.01": {0: timed, 1: timed}})}
    )
    finding = found(
        replace(evidence, results=evidence.results | {"classification": results}), "kernels_beat_numpy_on_texts", "sst"
    )
    reduction = flop_reduction(0.5, 100, 5).exact_count
    assert finding.estimate.value == pytest.approx((2.0 - numpy) / reduction) and finding.verdict == verdict


@pytest.mark.parametrize(("on_gpu", "verdict"), [(20.0, "supported"), (0.1, "contradicted")])
def test_a_gpus_latency_is_held_against_ours(on_gpu: float, verdict: str, config: Config, tmp_path: Path):
    read = gpu.Measurement(
        benchmark="latency", name="torch", batch=1, steps=300, models=1, seconds=summarise([300e-6 * on_gpu] * 9)
    )
    evidence = replace(
        with_benchmark(config, tmp_path, {(100, "folded"): 0.8}),
        gpu_benchmark=gpu.GPUReport(environment=environment(), measurements=[read], targets=[]),
    )
    finding = found(evidence, "beats_gpu_latency")
    ours = MICROSECONDS / (0.8 * flop_reduction(0.9, 100, 10).exact_count)
    assert finding.estimate.value == pytest.approx(on_gpu - ours) and finding.verdict == verdict
    assert found(replace(evidence, gpu_benchmark=None), "beats_gpu_latency").verdict == "not tested"
    assert np.isfinite(finding.estimate.interval).all()
