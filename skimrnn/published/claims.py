"""The paper's claims, as data (`claims.yaml`): what is said, where, and the rule by which it is judged."""

from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import Field, TypeAdapter, field_validator

from skimrnn.data.registry import get_dataset
from skimrnn.files import Closed

StatisticName = Literal[
    "accuracy_kept",
    "flop_reduction_at_accuracy",
    "gamma_effect",
    "layer_skim_rate",
    "layer_confidence",
    "modelling_layer_skim_rate",
    "modelling_layer_confidence",
    "skimming_beats_skipping",
    "threshold_moves_flops",
    "threshold_is_smooth",
    "bidaf_cost",
    "skimming_beats_fewer_layers",
    "skimming_beats_smaller_size",
    "speedup_below_flops",
    "gap_closes",
    "kernels_beat_numpy",
    "kernels_beat_numpy_on_texts",
    "beats_gpu_latency",
]


class Part(Closed):
    """One statistic of a claim, larger where the claim is truer, and the value that decides.

    Without datasets it is about the benchmark of the layers. `minimum` is how many seeds (or runs, or settings, as the
    rule says) there must be.
    """

    statistic: StatisticName
    datasets: list[str]
    threshold: float
    minimum: int = Field(gt=0)
    rule: str

    @field_validator("datasets")
    @classmethod
    def _datasets_are_known(cls, datasets: list[str]) -> list[str]:
        return [get_dataset(name).name for name in datasets]


class Claim(Closed):
    """One claim; `where` names its place in the paper."""

    number: int
    statement: str
    where: str
    parts: list[Part] = Field(min_length=1)


@cache
def published_claims() -> tuple[Claim, ...]:
    """The claims, in the order of their numbers."""
    text = resources.files("skimrnn.published").joinpath("claims.yaml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[Claim, ...]).validate_python(yaml.safe_load(text))
