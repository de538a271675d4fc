"""The datasets of the paper: where each one lives, what it must look like, and what the paper says of it."""

from dataclasses import dataclass, field
from typing import Literal

from skimrnn.errors import UserError

Task = Literal["classification", "question_answering"]
"""What is asked about a text: a dataset asks it, and a model answers it."""

Alignment = Literal["exact", "widened", "unusable"]
"""How an answer became a span of tokens: it ends where tokens end; it is the tokens that it begins and ends in; or it
does not stand where the data says it stands."""


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    `rows` are the rows of the official release, per split; a source that gives fewer is incomplete and the records
    say so. For classification, `validation_rows` is the size of the validation split that is carved out of train where
    the release has none (the paper's sizes); `tokenised` texts are split at spaces, others by the Treebank tokenizer.
    A `cloze` text has no fixed classes: it asks for a missing word among candidates of its own, and the label is the
    right one's place. A dataset that is not `on_hub` is a stand-in of ours, found in a mirror alone; the paper does not
    know it.
    """

    name: str
    title: str
    hub_id: str
    licence: str
    rows: dict[str, int]
    classes: tuple[str, ...] = ()
    tokenised: bool = False
    validation_rows: int | None = None
    hub_config: str | None = None
    hub_revision: str | None = None
    unlabelled_split: str | None = None
    task: Task = "classification"
    cloze: bool = False
    on_hub: bool = True
    columns: tuple[str, ...] = field(default=("text", "label"))

    @property
    def address(self) -> str:
        """`<org>/<name>`, then the configuration where the dataset is one of several: its folder in a mirror, too."""
        return f"{self.hub_id}/{self.hub_config}" if self.hub_config else self.hub_id

    def file(self, split: str) -> str:
        """Where a mirror has a split, and what its manifest calls it."""
        return f"{self.address}/{split}.parquet"

    @property
    def labelled_splits(self) -> tuple[str, ...]:
        """The splits of the release that carry labels."""
        return tuple(split for split in self.rows if split != self.unlabelled_split)


_SENTIMENT = ("negative", "positive")


def _cloze(name: str, title: str, hub_id: str, hub_config: str, rows: tuple[int, int, int], licence: str) -> Dataset:
    return Dataset(
        name=name,
        title=title,
        hub_id=hub_id,
        hub_config=hub_config,
        classes=(),
        licence=licence,
        rows=dict(zip(("train", "validation", "test"), rows, strict=True)),
        tokenised=True,
        cloze=True,
        on_hub=hub_id == "cam-cst/cbt",
        columns=("sentences", "question", "answer", "options"),
    )


_CBT_LICENCE = "GFDL (Hill et al., 2016); the books are in the public domain"
_BOOKS = "public domain: ten of the books of CBT's validation and test sets, cut into questions by simple rules"

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="sst",
            title="SST",
            hub_id="SetFit/sst2",
            classes=_SENTIMENT,
            licence="research use (Socher et al., 2013)",
            rows={"train": 6_920, "validation": 872, "test": 1_821},
            tokenised=True,
        ),
        Dataset(
            name="rotten_tomatoes",
            title="Rotten Tomatoes",
            hub_id="cornell-movie-review-data/rotten_tomatoes",
            classes=_SENTIMENT,
            licence="research use (Pang and Lee, 2005)",
            rows={"train": 8_530, "validation": 1_066, "test": 1_066},
            tokenised=True,
        ),
        Dataset(
            name="imdb",
            title="IMDb",
            hub_id="stanfordnlp/imdb",
            classes=_SENTIMENT,
            licence="research use (Maas et al., 2011)",
            rows={"train": 25_000, "test": 25_000, "unsupervised": 50_000},
            validation_rows=3_857,
            unlabelled_split="unsupervised",
        ),
        Dataset(
            name="ag_news",
            title="AG News",
            hub_id="fancyzhx/ag_news",
            classes=("World", "Sports", "Business", "Sci/Tech"),
            licence="non-commercial research use (Zhang et al., 2015)",
            rows={"train": 120_000, "test": 7_600},
            validation_rows=18_149,
        ),
        Dataset(
            name="squad",
            title="SQuAD v1.1",
            hub_id="rajpurkar/squad",
            licence="CC BY-SA 4.0 (Rajpurkar et al., 2016)",
            rows={"train": 87_599, "validation": 10_570},
            task="question_answering",
        ),
        _cloze("cbt_ne", "CBT-NE", "cam-cst/cbt", "NE", (108_719, 2_000, 2_500), _CBT_LICENCE),
        _cloze("cbt_cn", "CBT-CN", "cam-cst/cbt", "CN", (120_769, 2_000, 2_500), _CBT_LICENCE),
        _cloze("cbt_mini_ne", "Ten children's books, names", "cbt-mini", "NE", (4_465, 1_000, 1_000), _BOOKS),
        _cloze("cbt_mini_cn", "Ten children's books, nouns", "cbt-mini", "CN", (7_970, 822, 1_000), _BOOKS),
    )
}


def get_dataset(name: str) -> Dataset:
    """The dataset called `name`; an unknown name is a `UserError` that lists the known ones."""
    if name not in DATASETS:
        raise UserError(f"unknown dataset {name!r}: choose one of {', '.join(DATASETS)}")
    return DATASETS[name]
