"""The coloured texts: which words a model reads and which it skims, at each threshold of its sweep."""

from dataclasses import dataclass
from itertools import groupby

from skimrnn.analysis.artefact import TRAINED_FOR, Sample
from skimrnn.data.registry import get_dataset
from skimrnn.reporting.evidence import Evidence
from skimrnn.reporting.systems import system_titles


@dataclass(frozen=True)
class Word:
    """One token; `read` is the decision of the first LSTM, `in_answer` says whether it is part of the right answer."""

    text: str
    read: bool
    in_answer: bool


@dataclass(frozen=True)
class Text:
    """One text as it is read at the threshold of training; `number` is its place in what the script reads."""

    number: int
    sample: Sample
    said: str
    words: list[Word]
    directions: list[str]
    strips: list[str]  # one path a direction, in a box one unit a token wide and one high

    @property
    def read(self) -> list[str]:
        """The words that are read."""
        return [word.text for word in self.words if word.read]


@dataclass(frozen=True)
class Reading:
    """The texts of one model."""

    title: str
    texts: list[Text]

    @property
    def share_read(self) -> float:
        """The share of the words that is read."""
        return sum(len(text.read) for text in self.texts) / sum(len(text.words) for text in self.texts)


@dataclass(frozen=True)
class Library:
    """The texts of one dataset and the thresholds they were read at; `start` is the place of the one shown first.

    So is `first` of the model: the one that reads nearest to half of the words, which shows most.
    """

    dataset: str
    title: str
    thresholds: list[float]
    start: int
    readings: list[Reading]

    @property
    def first(self) -> int:
        """The place of the model that is shown first."""
        return min(range(len(self.readings)), key=lambda place: abs(self.readings[place].share_read - 0.5))


class TextMaker:
    """Collects the texts of all datasets; `swept` is what the script of the page reads, a value a text."""

    def __init__(self) -> None:
        self.swept: list[dict[str, object]] = []

    def libraries(self, evidence: Evidence) -> list[Library]:
        """The texts of each dataset for which a skimming model was analysed: of each model, with its first seed."""
        libraries = []
        for dataset in evidence.config.datasets:
            results = evidence.of(dataset)
            assert results is not None
            readings, thresholds = [], [TRAINED_FOR]
            for model, title in system_titles(results.config).items():
                analyses = [evidence.analyses.get((dataset, model, seed)) for seed in results.config.seeds_of(dataset)]
                analysis = next((found for found in analyses if found is not None), None)
                if analysis is not None and analysis.skim is not None and analysis.skim.samples:
                    thresholds = [point.threshold for point in analysis.skim.samples[0].points]
                    texts = [self._text(sample, analysis.skim.directions) for sample in analysis.skim.samples]
                    unfinished = "" if analysis.finished else ", training not finished"
                    readings.append(Reading(f"{title}, seed {analysis.config.seed}{unfinished}", texts))
            if readings:
                title, start = get_dataset(dataset).title, _nearest(thresholds)
                libraries.append(Library(dataset, title, thresholds, start, readings))
        return libraries

    def _text(self, sample: Sample, directions: list[str]) -> Text:
        self.swept.append({"points": [point.model_dump() for point in sample.points]})
        first = sample.points[_nearest([point.threshold for point in sample.points])]
        start, end = sample.span or (1, 0)
        words = [
            Word(token, read == "1", start <= place <= end)
            for place, (token, read) in enumerate(zip(sample.tokens, first.read[0], strict=True))
        ]
        strips = [strip_path(read) for read in first.read]
        return Text(len(self.swept) - 1, sample, first.answer, words, directions, strips)


def _nearest(thresholds: list[float]) -> int:
    """The place of the threshold that models are trained for, or of the one nearest to it."""
    return min(range(len(thresholds)), key=lambda place: abs(thresholds[place] - TRAINED_FOR))


def strip_path(read: str) -> str:
    """The path, for an SVG, of boxes over the tokens that are read (`1`)."""
    path, place = "", 0
    for decision, run in groupby(read):
        length = len(list(run))
        if decision == "1":
            path += f"M{place} 0h{length}v1h-{length}z"
        place += length
    return path
