"""The analysis of one run: the trained weights read the scored split again; nothing is trained.

All samples are drawn with a fixed seed, so equal weights and data give equal bytes.
"""

from pathlib import Path

import numpy as np
import torch

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
from skimrnn.analysis.subject import QuestionSubject, Reading, Subject, open_subject
from skimrnn.analysis.words import BANDS, DECILES, KINDS, bands_of, deciles_of, kind_of
from skimrnn.config import RunConfig
from skimrnn.data.prepare import Prepared
from skimrnn.device import CPU
from skimrnn.errors import UserError
from skimrnn.files import sha256_of_file
from skimrnn.provenance import ANALYSIS_CODE, code_digest, environment
from skimrnn.training.record import weights_file

_SEED = 0
_SWEEP_TOKENS = {False: 500_000, True: 200_000}  # Of one pass of a classifier, and of a reader with its four LSTMs.
_BINS = 20
_CALIBRATION_EDGES = np.array([0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1])
_FLIPS = {False: 100, True: 40}  # Of each bin and LSTM.
_SAMPLE_TOKENS = 400  # Of the longest sample text.
_SAMPLES = 2


def analyse(
    run: RunConfig,
    prepared: Prepared,
    tokens: Path | None,
    folder: Path,
    *,
    device: torch.device = CPU,
    unfinished: bool = False,
) -> Analysis:
    """Analyse the trained weights in `folder` on the split that the run's record scores."""
    weights = weights_file(folder, unfinished=unfinished)
    digest = sha256_of_file(weights)
    subject = open_subject(run, prepared, tokens, folder, device, unfinished)
    if sha256_of_file(weights) != digest:
        raise UserError(f"{weights}: training wrote it anew while it was read: run the same command again")
    reading = subject.read(np.arange(len(subject.lengths)))
    return Analysis(
        config=run,
        data_digest=prepared.manifest["digest"],
        weights_sha256=digest,
        finished=not unfinished,
        environment=environment(device),
        code_digest=code_digest(*ANALYSIS_CODE),
        outcomes=_pack_scores(reading.scores),
        skim=_analyse_skimming(subject, reading) if subject.directions else None,
    )


def _analyse_skimming(subject: Subject, reading: Reading) -> SkimAnalysis:
    return SkimAnalysis(
        directions=subject.directions,
        sweep=_sweep(subject),
        confidence=[_confidence(subject, reading, place) for place in range(len(subject.directions))],
        groups=_groups(subject, reading),
        samples=_samples(subject, reading),
    )


def _pack_scores(scores: dict[str, np.ndarray]) -> dict[str, Packed]:
    """Whole scores as bits, others (F1, shared credit) as words."""
    return {
        name: Packed.pack(values, "bit" if np.isin(values, (0, 1)).all() else "word") for name, values in scores.items()
    }


def _sweep(subject: Subject) -> Sweep:
    order = np.random.default_rng(_SEED).permutation(len(subject.lengths))
    limit = _SWEEP_TOKENS[isinstance(subject, QuestionSubject)]
    rows = np.sort(order[: 1 + np.searchsorted(np.cumsum(subject.lengths[order]), limit)])
    points, outcomes = [], []
    for threshold in THRESHOLDS:
        reading = subject.read(rows, threshold)
        rates = reading.skim_rates
        points.append(
            SweepPoint(
                threshold=threshold,
                scores={name: float(values.mean()) for name, values in reading.scores.items()},
                skim_rate=float(np.mean(rates)),
                layer_skim_rates=rates,
                flop_reduction=subject.flop_reduction(rows, rates),
            )
        )
        outcomes.append(reading.scores)
    return Sweep(
        included=Packed.pack(np.isin(np.arange(len(order)), rows), "bit"),
        points=points,
        outcomes=_pack_scores({name: np.stack([scores[name] for scores in outcomes]) for name in outcomes[0]}),
    )


def _confidence(subject: Subject, reading: Reading, place: int) -> Confidence:
    p = reading.p_read[place].astype(np.float64)
    surest = np.maximum(p, 1 - p)
    outcomes = np.stack([p, 1 - p]).clip(1e-12, 1)
    return Confidence(
        direction=subject.directions[place],
        tokens=len(p),
        skim_rate=reading.skim_rates[place],
        histogram=np.histogram(surest, _BINS, (0.5, 1))[0].tolist(),
        mean=float(surest.mean()),
        entropy=float(-(outcomes * np.log2(outcomes)).sum(axis=0).mean()),
        beyond_90=float((surest > 0.9).mean()),
        by_example=Packed.pack(np.add.reduceat(surest, reading.starts) / reading.lengths, "byte", 0.5, 1),
        calibration=_calibration(subject, reading, place),
    )


def _calibration(subject: Subject, reading: Reading, place: int) -> list[CalibrationBin]:
    """Reverse a sample of the decisions of one LSTM, one at a time; the others, after it too, are left to the model."""
    random, most = np.random.default_rng([_SEED, place]), _FLIPS[isinstance(subject, QuestionSubject)]
    text = np.repeat(np.arange(len(reading.lengths)), reading.lengths)
    bins = np.searchsorted(_CALIBRATION_EDGES, reading.p_read[place], side="right") - 1
    bins = np.where(np.isnan(reading.losses)[text], -1, bins.clip(max=len(_CALIBRATION_EDGES) - 2))
    drawn = []
    for index in range(len(_CALIBRATION_EDGES) - 1):
        inside = np.flatnonzero(bins == index)
        drawn.append(random.choice(inside, min(most, len(inside)), replace=False))
    chosen = np.concatenate(drawn)
    rows, was_read = text[chosen], reading.read[place, chosen]
    flips = np.stack([np.full(len(rows), place), chosen - reading.starts[rows], np.where(was_read, -1, 1)], axis=1)
    flipped = subject.read(rows, flips=flips)
    gain = np.where(was_read, 1, -1) * (flipped.losses - reading.losses[rows])
    changed = (flipped.answers != reading.answers[rows]).any(axis=1)
    result, start = [], 0
    for index, decisions in enumerate(drawn):
        own = slice(start, start := start + len(decisions))
        count = len(decisions)
        result.append(
            CalibrationBin(
                low=float(_CALIBRATION_EDGES[index]),
                high=float(_CALIBRATION_EDGES[index + 1]),
                decisions=count,
                reading_gain=float(gain[own].mean()) if count else None,
                reading_gain_error=float(gain[own].std(ddof=1) / np.sqrt(count)) if count > 1 else None,
                answers_changed=float(changed[own].mean()) if count else None,
            )
        )
    return result


def _groups(subject: Subject, reading: Reading) -> list[Group]:
    rows = range(len(reading.lengths))
    known: dict[str, int] = {}

    def kind(token: str) -> int:
        if token not in known:
            known[token] = kind_of(token)
        return known[token]

    kinds = np.fromiter((kind(token) for row in rows for token in subject.tokens(row)), np.int64)
    words = np.concatenate([subject.words(row) for row in rows])
    found = []
    for grouping, names, members in (
        ("position", DECILES, deciles_of(reading.lengths)),
        ("kind", KINDS, kinds),
        ("frequency", BANDS, bands_of(words, subject.vocabulary_size)),
    ):
        totals = np.bincount(members, minlength=len(names))
        skimmed = np.stack([np.bincount(members[~read], minlength=len(names)) for read in reading.read])
        found += [
            Group(grouping=grouping, name=name, tokens=int(totals[place]), skimmed=skimmed[:, place].tolist())
            for place, name in enumerate(names)
            if totals[place]
        ]
    return found


def _samples(subject: Subject, reading: Reading) -> list[Sample]:
    """Texts of middling length that are answered rightly, no two with one answer where answers are classes."""
    right = next(reversed(reading.scores.values())) == 1  # Accuracy or exact match.
    usual = np.median(reading.lengths)
    fitting = right & (reading.lengths <= min(_SAMPLE_TOKENS, 1.5 * usual)) & (reading.lengths >= 0.5 * usual)
    chosen: dict[str, int] = {}
    for row in np.random.default_rng(_SEED).permutation(len(fitting)).tolist():
        if fitting[row] and not np.isnan(reading.losses[row]) and len(chosen) < _SAMPLES:
            chosen.setdefault(subject.right_answer(row), row)
    rows = np.array(list(chosen.values()), np.int64)
    if not len(rows):
        return []
    passes = [subject.read(rows, threshold) for threshold in THRESHOLDS]
    return [_sample(subject, row, place, passes) for place, row in enumerate(rows.tolist())]


def _sample(subject: Subject, row: int, place: int, passes: list[Reading]) -> Sample:
    points = []
    for threshold, reading in zip(THRESHOLDS, passes, strict=True):
        own = slice(reading.starts[place], reading.starts[place] + reading.lengths[place])
        points.append(
            SamplePoint(
                threshold=threshold,
                answer=subject.answer_text(row, reading.answers[place]),
                p_read=[np.rint(255 * p[own]).astype(np.uint8).tobytes().hex() for p in reading.p_read],
                read=["".join("01"[int(read)] for read in line[own]) for line in reading.read],
            )
        )
    return Sample(
        row=row,
        title=subject.right_answer(row),
        question=subject.question(row),
        right_answer=subject.right_answer(row),
        tokens=subject.tokens(row),
        span=subject.span(row),
        points=points,
    )
