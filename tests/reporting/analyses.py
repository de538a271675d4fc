"""Synthetic analyses with known curves, and the records that they belong to."""

from pathlib import Path

import numpy as np

from skimrnn.analysis.artefact import (
    THRESHOLDS,
    Analysis,
    CalibrationBin,
    Confidence,
    Group,
    Packed,
    Sample,
    SamplePoint,
    SkimAnalysis,
    Sweep,
    SweepPoint,
)
from skimrnn.config import Config
from skimrnn.files import write_json
from skimrnn.measures.flops import FlopReduction
from skimrnn.reporting.systems import skims
from tests.reporting.conftest import build_record, changed, reading_record, sequences_of, store_record

EXAMPLES = 400


def outcomes(mean: float, random: np.random.Generator) -> np.ndarray:
    """Zeros and ones with exactly this mean."""
    return random.permutation(np.arange(EXAMPLES) < round(mean * EXAMPLES)).astype(float)


def analysis_of(record, skims: bool, *, at_one: float = 0.5, surer: float = 0.05) -> Analysis:
    """An analysis of a record: its score falls linearly in log Flop-r, from its own at Flop-r 1 to `at_one` at 10.

    Each LSTM is surer than the one before by `surer`.
    """
    run = record.config
    random = np.random.default_rng([run.seed, sum(map(ord, run.model_name))])
    reads = run.dataset == "squad"
    names = ["f1", "em"] if reads else ["accuracy"]
    own = {name: outcomes(getattr(record.test, name), random) for name in names}
    skim = None
    if skims:
        directions = sequences_of(run.model_name) if reads else ["layer"]
        flops = 10 ** np.linspace(0, 1, len(THRESHOLDS))
        start = getattr(record.test, names[0])
        scores = start + (at_one - start) * np.linspace(0, 1, len(THRESHOLDS))
        rates = np.linspace(0, 1, len(THRESHOLDS))
        scores = np.array([outcomes(score, np.random.default_rng(0)).mean() for score in scores])
        swept = Packed.pack([outcomes(score, np.random.default_rng(0)) for score in scores], "bit")
        skim = SkimAnalysis(
            directions=directions,
            sweep=Sweep(
                included=Packed.pack(np.ones(EXAMPLES), "bit"),
                points=[
                    SweepPoint(
                        threshold=threshold,
                        scores=dict.fromkeys(names, float(scores[place])),
                        skim_rate=float(rates[place]),
                        layer_skim_rates=[float(rates[place])] * len(directions),
                        flop_reduction=FlopReduction(published_convention=flops[place], exact_count=flops[place]),
                    )
                    for place, threshold in enumerate(THRESHOLDS)
                ],
                outcomes=dict.fromkeys(names, swept),
            ),
            confidence=[_confidence(d, 0.6 + surer * place, random) for place, d in enumerate(directions)],
            groups=[
                Group(grouping=grouping, name=name, tokens=100, skimmed=[10 + 7 * place] * len(directions))
                for grouping, own_names in (
                    ("position", [f"{10 * tenth} to {10 * (tenth + 1)} %" for tenth in range(10)]),
                    ("kind", ["punctuation", "number", "stop word", "other"]),
                    ("frequency", ["100 most frequent", "101 to 1,000", "rarer", "not in training"]),
                )
                for place, name in enumerate(own_names)
            ],
            samples=[_sample(directions, "Who wrote $it$?" if reads else None)],
        )
    return Analysis(
        config=run,
        data_digest=record.data.digest,
        weights_sha256="5f" * 32,
        finished=True,
        environment=record.training.environment,
        code_digest="6f" * 32,
        outcomes={name: Packed.pack(values, "bit") for name, values in own.items()},
        skim=skim,
    )


def _confidence(direction: str, mean: float, random: np.random.Generator) -> Confidence:
    surest = np.clip(random.normal(mean, 0.1, EXAMPLES), 0.5, 1)
    edges = np.linspace(0, 1, 11)
    return Confidence(
        direction=direction,
        tokens=EXAMPLES,
        skim_rate=0.4,
        histogram=np.histogram(surest, 20, (0.5, 1))[0].tolist(),
        mean=float(surest.mean()),
        entropy=0.7,
        beyond_90=float((surest > 0.9).mean()),
        by_example=Packed.pack(surest, "byte", 0.5, 1),
        calibration=[
            CalibrationBin(
                low=low,
                high=high,
                decisions=100 if low < 0.9 else 0,
                reading_gain=low - 0.4 if low < 0.9 else None,
                reading_gain_error=0.05 if low < 0.9 else None,
                answers_changed=0.1 if low < 0.9 else None,
            )
            for low, high in zip(edges.tolist(), edges[1:].tolist(), strict=False)
        ],
    )


def _sample(directions: list[str], question: str | None) -> Sample:
    tokens = [f"w{place}" if place % 9 else "$5" for place in range(70)]
    return Sample(
        row=3,
        title="positive",
        question=question,
        right_answer="w3 w4",
        tokens=tokens,
        span=(3, 4) if question else None,
        points=[
            SamplePoint(
                threshold=threshold,
                answer="w3 w4",
                p_read=["80" * len(tokens)] * len(directions),
                read=[
                    "".join("01"[(place * 7 + row) % 10 / 10 >= threshold] for place in range(len(tokens)))
                    for row in range(len(directions))
                ],
            )
            for threshold in THRESHOLDS
        ],
    )


def store_analysed(
    folder: Path, config: Config, dataset: str, model: str, seed: int, score: float, **options: float
) -> None:
    """Write a record with this score (a multiple of 1/400, for F1 of 1/10) and its analysis below `folder`."""
    if dataset == "squad":
        record = reading_record(config, model, seed, score)
        record = record.model_copy(update={"test": record.test.model_copy(update={"em": round(score - 0.1, 4)})})
    else:
        record = changed(build_record(config, dataset, model, seed), "test.accuracy", score)
    path = store_record(folder, record)
    analysis = analysis_of(record, skims(config.models[model]), **options)
    write_json(path.with_suffix(".analysis.json"), analysis.model_dump(mode="json"))
