"""Synthetic records, built through the record's own model and written where the pipeline writes them."""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from skimrnn.analysis.artefact import THRESHOLDS, Analysis, Packed
from skimrnn.benchmarks.speedup import ModelSpeed, Speed
from skimrnn.config import Config, SkimLSTMConfig, SkimReaderConfig
from skimrnn.data.registry import DATASETS
from skimrnn.files import write_json
from skimrnn.measures.flops import FlopReduction, flop_reduction
from skimrnn.provenance import environment
from skimrnn.reporting.records import AnyRecord
from skimrnn.training.record import ReadingRecord, Record

MODELS = {"lstm": {"architecture": "lstm", "hidden_size": 100}} | {
    f"skim-{small}-{gamma}": {
        "architecture": "skim_lstm",
        "hidden_size": 100,
        "small_size": small,
        "gamma": gamma,
    }
    for gamma in (0.01, 0.02)
    for small in (5, 10)
}
ENVIRONMENT = {
    "git_commit": "633f30295850142d758920b9a8553b630af3dd3f",
    "git_dirty": False,
    "code_digest": "4f" * 32,
    "python": "3.11.7",
    "packages": {"torch": "2.9.0"},
    "cpu": "some processor, 2 cores",
    "gpu": None,
    "threads": 1,
}


def build_speed(dataset: str, models: dict[str, dict[int, ModelSpeed]]) -> Speed:
    """What was measured of some models of a dataset."""
    return Speed(
        dataset=dataset,
        texts=1,
        tokens=1,
        data_digest="",
        isa="plain",
        environment=environment(),
        models=models,
    )


def build_config(**changes: object) -> Config:
    """The paper's grid on two datasets, from a mirror."""
    values: dict[str, object] = {
        "scale": "paper",
        "seeds": [0, 1, 2],
        "data": {"source": "mirror", "mirror": "hub"},
        "datasets": {"sst": {"batch_size": 32}, "imdb": {"batch_size": 128}},
        "models": MODELS,
    }
    return Config.model_validate(values | changes)


def build_record(config: Config, dataset: str, model: str, seed: int) -> Record:
    """A plausible record; equal arguments give equal records."""
    chance = random.Random(f"{dataset} {model} {seed}")
    run = config.run(dataset, model, seed)
    skims = isinstance(run.model, SkimLSTMConfig)
    skim_rate = 0.4 + 0.4 * chance.random() if skims else 0.0

    def scores(accuracy: float, skim_rate: float) -> dict[str, object]:
        return {"examples": 100, "tokens": 1900, "accuracy": accuracy, "loss": 0.5, "skim_rate": skim_rate}

    steps = range(200, 200 * chance.randint(20, 30), 200)
    history = [
        {
            "step": step,
            "temperature": math.exp(-1e-4 * step),
            "training_loss": 0.6,
            "validation": scores(
                0.85 - 0.3 * math.exp(-step / 900) + 0.02 * chance.random(), skim_rate * (1 - math.exp(-step / 1500))
            ),
        }
        for step in steps
    ]
    reduction = (
        flop_reduction(skim_rate, run.model.hidden_size, run.model.small_size)
        if isinstance(run.model, SkimLSTMConfig)
        else FlopReduction(published_convention=1.0, exact_count=1.0)
    )
    split = {"rows": 100, "tokens": 1900, "mean_length": 19.0, "vector_coverage": 0.94, "sha256": "1f"}
    return Record.model_validate(
        {
            "config": run,
            "data": {
                "source": config.data.source,
                "revision": None,
                "complete": True,
                "release": {
                    name: {"rows": rows, "official_rows": rows, "sha256": "0f"}
                    for name, rows in DATASETS[dataset].rows.items()
                },
                "splits": dict.fromkeys(("train", "validation", "test"), split),
                "vocabulary_size": 13_750,
                "vectors": {
                    "source": "corpus",
                    "settings": {"window": 8, "min_count": 3},
                    "dimension": 100,
                    "words": 13_000,
                    "sha256": "2f",
                },
                "digest": "3f" * 32,
            },
            "training": {
                "steps": steps[-1],
                "best_step": steps[-5],
                "stopped": "patience",
                "history": history,
                "environment": ENVIRONMENT,
            },
            "test": scores(0.8 + 0.05 * chance.random(), skim_rate),
            "flop_reduction": reduction,
            "kernel": "reference",
        }
    )


def sequences_of(model: str) -> list[str]:
    """What the LSTMs of a skimming reader are called, from the first to read to the last."""
    layers = ["contextual", "modelling 1", "modelling 2", "output"] if "bidaf" in model else ["layer 1", "layer 2"]
    return [f"{layer} {direction}" for layer in layers for direction in ("forward", "backward")]


def reading_record(config: Config, model: str, seed: int, f1: float, stopped: str = "patience") -> ReadingRecord:
    run = config.run("squad", model, seed)
    skims = isinstance(run.model, SkimReaderConfig)

    def scores(f1: float) -> dict[str, object]:
        names = sequences_of(model)
        return {
            "examples": 10_570,
            "tokens": 1_535_081,
            "f1": f1,
            "em": f1 - 0.1,
            "independent_f1": f1 - 0.02,
            "independent_em": f1 - 0.12,
            "skim_rate": 0.45 if skims else 0.0,
            "layer_skim_rates": {name: 0.2 + 0.1 * place for place, name in enumerate(names)} if skims else {},
        }

    split = {
        "rows": 10_570,
        "tokens": 1_535_081,
        "mean_length": 145.2,
        "alignment": {"exact": 10_499, "widened": 71, "unusable": 0},
        "vector_coverage": 0.97,
        "sha256": "1f",
    }
    return ReadingRecord.model_validate(
        {
            "config": run,
            "data": {
                "source": config.data.source,
                "revision": None,
                "complete": True,
                "release": {"train": {"rows": 87_599, "official_rows": 87_599, "sha256": "0f"}},
                "splits": {"train": split, "validation": split},
                "vocabulary_size": 88_494,
                "alphabet_size": 152,
                "vectors": {"source": "corpus", "settings": {}, "dimension": 100, "words": 50_000, "sha256": "2f"},
                "digest": "3f" * 32,
            },
            "training": {
                "steps": 4_000,
                "best_step": 3_500,
                "stopped": stopped,
                "history": [
                    {
                        "step": step,
                        "temperature": 0.9,
                        "training_loss": 5.0,
                        "validation": scores(f1 - 0.1 + step / 4e4),
                    }
                    for step in (500, 1000)
                ],
                "environment": ENVIRONMENT,
            },
            "test": scores(f1),
            "operations": {"attention": 1.0, "recurrent": 8.0, "decision": 0.5, "output": 0.5},
            "flop_reduction": {"published_convention": 1.7, "exact_count": 1.4},
            "kernel": "cpu",
        }
    )


HOSTILE = ("<script>document.title='owned'</script>", "<br", "/>", '"quoted"', "it's", "&amp;", "</script>", "{{7*7}}")
"""Tokens that a page must show as they stand."""


def build_analysis(record: AnyRecord, directions: Sequence[str], question: str | None = None) -> Analysis:
    """An analysis with two texts: one of plain words, whose n-th is read below threshold n/10, and a hostile one."""
    words = [f"word{place}" for place in range(10)]
    scores = {name: getattr(record.test, name) for name in ("accuracy", "f1", "em") if hasattr(record.test, name)}
    bin_ = {"low": 0.0, "high": 1.0, "decisions": 9, "reading_gain": 0.1, "reading_gain_error": 0.1}
    confidence = {
        **{"tokens": 1900, "skim_rate": 0.5, "histogram": [95] * 20, "mean": 0.9, "entropy": 0.3, "beyond_90": 0.4},
        "by_example": Packed.pack([0.8, 0.9], "byte"),
        "calibration": [{**bin_, "answers_changed": 0.2}],
    }
    sweep = [
        {
            "threshold": threshold,
            "scores": scores,
            "skim_rate": threshold,
            "layer_skim_rates": [threshold] * len(directions),
            "flop_reduction": {"published_convention": 1 + threshold, "exact_count": 1 + threshold},
        }
        for threshold in THRESHOLDS
    ]

    def sample(row: int, tokens: Sequence[str]) -> dict[str, object]:
        p_read = [(place % 10 + 0.5) / 10 for place in range(len(tokens))]

        def point(threshold: float) -> dict[str, object]:
            # Each LSTM reads one word less than the one before.
            read = ["".join("01"[p > threshold + 0.1 * place] for p in p_read) for place in range(len(directions))]
            return {
                "threshold": threshold,
                "answer": "positive" if threshold < 0.9 else HOSTILE[0],
                "p_read": ["".join(f"{round(255 * p):02x}" for p in p_read)] * len(directions),
                "read": read,
            }

        return {
            "row": row,
            "title": "positive" if question is None else "question",
            "question": question,
            "right_answer": "positive",
            "tokens": tokens,
            "span": None if question is None else (2, 3),
            "points": [point(threshold) for threshold in THRESHOLDS],
        }

    return Analysis.model_validate(
        {
            "config": record.config,
            "data_digest": record.data.digest,
            "weights_sha256": "5f" * 32,
            "finished": True,
            "environment": record.training.environment,
            "code_digest": "6f" * 32,
            "outcomes": {name: Packed.pack([score] * 2, "word") for name, score in scores.items()},
            "skim": {
                "directions": directions,
                "sweep": {
                    "included": Packed.pack([1, 1], "bit"),
                    "points": sweep,
                    "outcomes": {
                        name: Packed.pack([[score] * 2] * len(sweep), "word") for name, score in scores.items()
                    },
                },
                "confidence": [
                    {"direction": direction, **confidence, "mean": 0.6 + 0.05 * place}
                    for place, direction in enumerate(directions)
                ],
                "groups": [],
                "samples": [sample(3, words), sample(7, HOSTILE)],
            },
        }
    )


def store_record(folder: Path, record: AnyRecord, path: Path | None = None) -> Path:
    """Write a record and its times where the pipeline would, or at `path`."""
    run = record.config
    path = path or folder / run.scale / run.dataset / run.model_name / f"{run.seed}.json"
    write_json(path, record.model_dump(mode="json"))
    write_json(path.with_suffix(".timing.json"), {"wall_seconds": 80.5, "peak_memory_mib": 482})
    return path


def changed(record: Record, key: str, value: object) -> Record:
    """The record with the value at a dotted key replaced."""
    values = record.model_dump()
    *parents, last = key.split(".")
    inner = values
    for parent in parents:
        inner = inner[parent]
    assert last in inner
    inner[last] = value
    return Record.model_validate(values)


@pytest.fixture
def config() -> Config:
    return build_config()


@pytest.fixture
def make_config() -> Callable[..., Config]:
    return build_config


@pytest.fixture
def make_record() -> Callable[..., Record]:
    return build_record


@pytest.fixture
def change() -> Callable[..., Record]:
    return changed


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    """Writes a record below `tmp_path`."""
    return lambda record, path=None: store_record(tmp_path, record, path)


@pytest.fixture
def grid(tmp_path: Path, config: Config) -> Path:
    """The folder of a grid in which SST is run with three seeds, but for two models, and IMDb is not run."""
    for model in config.models:
        for seed in {"skim-5-0.02": [1], "skim-10-0.02": []}.get(model, config.seeds):
            store_record(tmp_path, build_record(config, "sst", model, seed))
    return tmp_path
