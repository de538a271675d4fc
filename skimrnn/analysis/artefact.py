"""The analysis of a run: one JSON file beside its record, from which claims, figures and coloured texts are made."""

import base64
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import model_validator

from skimrnn.config import RunConfig
from skimrnn.files import Closed, read_model
from skimrnn.measures.flops import FlopReduction
from skimrnn.provenance import Environment

THRESHOLDS = (0.0, *(round(0.05 + 0.075 * step, 3) for step in range(13)), 1.0)
"""Where the threshold is put in a sweep: all is read at 0, all is skimmed at 1, and `TRAINED_FOR` is among them."""

TRAINED_FOR = 0.5
"""The threshold that a model is trained for."""

_STEPS = {"bit": 1, "byte": 255, "word": 65535}


class Packed(Closed):
    """Numbers from `low` to `high` in equal steps: bits, bytes or little-endian 16-bit words, deflated, in base64.

    They are in the order of C; bits are packed eight to a byte, the first one highest.
    """

    kind: Literal["bit", "byte", "word"]
    low: float
    high: float
    shape: tuple[int, ...]
    data: str

    @classmethod
    def pack(cls, values: Any, kind: Literal["bit", "byte", "word"], low: float = 0.0, high: float = 1.0) -> Self:
        """Pack an array of any shape, each value rounded to the nearest step."""
        array = np.asarray(values, dtype=np.float64)
        assert array.size == 0 or (array.min() >= low - 1e-6 and array.max() <= high + 1e-6)
        steps = np.rint((array - low) / (high - low) * _STEPS[kind]).clip(0, _STEPS[kind])
        if kind == "bit":
            raw = np.packbits(steps.astype(np.uint8)).tobytes()
        else:
            raw = steps.astype("<u1" if kind == "byte" else "<u2").tobytes()
        data = base64.b64encode(zlib.compress(raw, 9)).decode()
        return cls(kind=kind, low=low, high=high, shape=array.shape, data=data)

    @model_validator(mode="after")
    def _holds_its_shape(self) -> Self:
        try:
            self.unpack()
        except (ValueError, zlib.error) as error:
            raise ValueError(f"damaged ({error})") from error
        return self

    def unpack(self) -> np.ndarray:
        """The numbers, as float64."""
        raw = np.frombuffer(zlib.decompress(base64.b64decode(self.data)), "<u2" if self.kind == "word" else "<u1")
        count = int(np.prod(self.shape))
        steps = np.unpackbits(raw)[:count] if self.kind == "bit" else raw
        return self.low + (self.high - self.low) * (steps / _STEPS[self.kind]).reshape(self.shape)


class SweepPoint(Closed):
    """The recurrence run anew with one threshold: means over the examples of the sweep, rates over their tokens."""

    threshold: float
    scores: dict[str, float]
    skim_rate: float
    layer_skim_rates: list[float]
    flop_reduction: FlopReduction


class Sweep(Closed):
    """One trained model at each of `THRESHOLDS`, on all scored examples or, where these are many, on a sample."""

    included: Packed  # (N), bits: the examples of the sweep
    points: list[SweepPoint]
    outcomes: dict[str, Packed]  # (points, examples of the sweep)


class CalibrationBin(Closed):
    """Decisions with p(read) in a range, each reversed by itself in an otherwise unchanged reading of its text.

    `reading_gain` is the task loss where the token is skimmed less that where it is read: positive where reading helps.
    """

    low: float
    high: float
    decisions: int
    reading_gain: float | None
    reading_gain_error: float | None  # Standard error of the mean.
    answers_changed: float | None  # Share of the decisions whose reversal changes what the model answers.

    @model_validator(mode="after")
    def _check_means(self) -> Self:
        none = self.decisions == 0
        if (self.reading_gain is None) != none or (self.answers_changed is None) != none:
            raise ValueError("a mean of no decisions, or none of some")
        return self

    @staticmethod
    def pooled(bins: Sequence["CalibrationBin"]) -> "CalibrationBin":
        """The decisions of several runs in the same range together; of lone decisions there is no standard error."""
        some = [point for point in bins if point.decisions]
        weights = np.array([point.decisions for point in some])
        count = int(weights.sum())
        errors = [point.reading_gain_error for point in some]
        return CalibrationBin(
            low=bins[0].low,
            high=bins[0].high,
            decisions=count,
            reading_gain=float(weights @ [point.reading_gain for point in some]) / count if some else None,
            reading_gain_error=float(np.linalg.norm(weights * errors)) / count if some and None not in errors else None,
            answers_changed=float(weights @ [point.answers_changed for point in some]) / count if some else None,
        )


class Confidence(Closed):
    """How sure one LSTM (a layer in a direction) is of its decisions, over the real tokens of all scored examples."""

    direction: str
    tokens: int
    skim_rate: float
    histogram: list[int]  # max(p_read, p_skim) in 20 equal ranges from 0.5 to 1
    mean: float  # of max(p_read, p_skim)
    entropy: float  # in bits, mean
    beyond_90: float  # share of decisions with max(p_read, p_skim) > 0.9
    by_example: Packed  # (N), the mean of each example
    calibration: list[CalibrationBin]


class Group(Closed):
    """Tokens that are alike in one way, and how many of them each LSTM skims."""

    grouping: Literal["position", "kind", "frequency"]
    name: str
    tokens: int
    skimmed: list[int]  # by direction


class SamplePoint(Closed):
    """One text read with one threshold; strings hold two (p_read) or one (read) character a token, one a direction."""

    threshold: float
    answer: str
    p_read: list[str]  # two hexadecimal digits a token, 00 to ff for 0 to 1
    read: list[str]  # 1 where the token is read, 0 where it is skimmed


class Sample(Closed):
    """A text that the model answers rightly, at each threshold. `span` is the first and last token of the answer."""

    row: int
    title: str
    question: str | None
    right_answer: str
    tokens: list[str]
    span: tuple[int, int] | None
    points: list[SamplePoint]


class SkimAnalysis(Closed):
    """What is known of a skimming model besides its outcomes; `directions` names its LSTMs, in the order of h_n."""

    directions: list[str]
    sweep: Sweep
    confidence: list[Confidence]
    groups: list[Group]
    samples: list[Sample]


class Analysis(Closed):
    """One run, analysed on the split that its record scores.

    `outcomes` holds one number for each example, in the order of the split: `accuracy` (shared credit for equal scores
    counts as a fraction) or `f1` and `em`. `finished` is False for a reader that was scored before its training ended.
    """

    schema_version: Literal[1] = 1
    config: RunConfig
    data_digest: str
    weights_sha256: str
    finished: bool
    environment: Environment
    code_digest: str
    outcomes: dict[str, Packed]  # (N)
    skim: SkimAnalysis | None


def read_analysis(path: Path) -> Analysis:
    """Read and check an analysis; a malformed one is a `UserError`."""
    return read_model(path, Analysis)
