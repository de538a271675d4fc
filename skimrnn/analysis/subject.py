"""What is analysed: a trained model with the split that its record scores, read text by text or token by token."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn import functional

from skimrnn.analysis.forced import ForcedSkimLSTM
from skimrnn.config import ReaderConfig, RunConfig, SkimLSTMConfig
from skimrnn.data.batches import collate, evaluation_rows
from skimrnn.data.prepare import UNKNOWN, Prepared
from skimrnn.data.questions import SCORED_SPLIT, collate_questions, read_questions, read_scoring
from skimrnn.errors import UserError
from skimrnn.files import read_json, read_parquet
from skimrnn.layers import Decisions, SkimLSTM
from skimrnn.measures.flops import FlopReduction, flop_reduction
from skimrnn.measures.squad import score_answers
from skimrnn.models import Classifier, ClozeReader, Reader
from skimrnn.models.reader import decode_jointly
from skimrnn.training.evaluate import credit
from skimrnn.training.record import load_classifier, load_reader, reading_operations


@dataclass(frozen=True)
class Reading:
    """What a model makes of R texts: their scores, losses and answers and, token by token, its decisions."""

    scores: dict[str, np.ndarray]  # (R)
    losses: np.ndarray  # (R), of the task alone; NaN where the right answer cannot be given
    answers: np.ndarray  # (R, 1 or 2): a class, or the first and last token
    p_read: np.ndarray  # (L, tokens of the R texts end to end); L is 0 for a model that reads every token
    read: np.ndarray  # (L, tokens), bool
    lengths: np.ndarray  # (R)

    @property
    def starts(self) -> np.ndarray:
        """The place of each text's first token (R)."""
        return np.asarray(np.cumsum(self.lengths) - self.lengths)

    @property
    def skim_rates(self) -> list[float]:
        """The share of tokens that each LSTM skims."""
        return [float(rate) for rate in 1 - self.read.mean(axis=1)]


class Subject(ABC):
    """A model and the N texts that it is analysed on."""

    model: Classifier | ClozeReader | Reader
    lengths: np.ndarray  # (N), tokens of each text
    vocabulary_size: int
    _device: torch.device
    _layers: list[ForcedSkimLSTM]

    @abstractmethod
    def words(self, row: int) -> np.ndarray:
        """The word numbers of a text."""

    @abstractmethod
    def tokens(self, row: int) -> list[str]:
        """The tokens of a text, as they stand in it where that is known."""

    @abstractmethod
    def answer_text(self, row: int, answer: np.ndarray) -> str:
        """An answer to one text, in words."""

    @abstractmethod
    def right_answer(self, row: int) -> str:
        """The right answer, in words."""

    def question(self, row: int) -> str | None:
        """What is asked about a text, if anything."""
        return None

    def span(self, row: int) -> tuple[int, int] | None:
        """The first and last token of the right answer, where it is a part of the text."""
        return None

    @abstractmethod
    def flop_reduction(self, rows: np.ndarray, skim_rates: list[float]) -> FlopReduction:
        """Flop-r on some texts, at the skim rates of each LSTM."""

    @abstractmethod
    def _answer(self, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, Decisions | None]:
        """Scores (B), losses (B), answers (B, 1 or 2) and decisions about one batch."""

    @property
    def directions(self) -> list[str]:
        """What the LSTMs of a skimming model are called, in the order of its decisions; nothing for a standard one."""
        if not self._layers:
            return []
        return self.model.sequences if isinstance(self.model, Reader) else ["layer"]

    @torch.no_grad()
    def read(self, rows: np.ndarray, threshold: float = 0.5, flips: np.ndarray | None = None) -> Reading:
        """Read the texts of `rows` (R; a row may come again) with hard decisions.

        `flips` (R, 3) reverses one decision of each: an LSTM, a token, and 1 to read it or -1 to skim it.
        """
        lengths = self.lengths[rows]
        starts = np.cumsum(lengths) - lengths
        count = len(self.directions)
        p_read = np.zeros((count, lengths.sum()), np.float32)
        read = np.zeros(p_read.shape, bool)
        scores: dict[str, np.ndarray] = {}
        losses, answers = np.zeros(len(rows)), np.zeros((len(rows), 0), np.int64)
        self.model.eval()
        for layer in self._layers:
            layer.threshold = threshold
        for places in evaluation_rows(lengths):
            if flips is not None:
                self._force(flips[places], torch.from_numpy(lengths[places]))
            found, losses[places], answer, decisions = self._answer(rows[places])
            if not answers.shape[1]:
                answers = np.zeros((len(rows), answer.shape[1]), np.int64)
            answers[places] = answer
            for name, values in found.items():
                scores.setdefault(name, np.zeros(len(rows)))[places] = values
            if decisions is not None:
                p, hard = decisions.log_probabilities[..., 0].exp().cpu().numpy(), decisions.read.cpu().numpy()
                for place, text in enumerate(places):
                    span = slice(starts[text], starts[text] + lengths[text])
                    p_read[:, span], read[:, span] = p[:, : lengths[text], place], hard[:, : lengths[text], place]
        for layer in self._layers:
            layer.force = layer.texts = None
        return Reading(scores, losses, answers, p_read, read, lengths)

    def _force(self, flips: np.ndarray, lengths: Tensor) -> None:
        force = torch.zeros(len(self.directions), int(lengths.max()), len(flips))
        which, token, way = torch.from_numpy(flips).unbind(1)
        force[which, token, torch.arange(len(flips))] = way.float()
        counts = [layer.num_layers * (2 if layer.bidirectional else 1) for layer in self._layers]
        for layer, part in zip(self._layers, force.split(counts), strict=True):
            layer.force, layer.texts = part, lengths

    def _take(self, model: Classifier | ClozeReader | Reader, device: torch.device) -> None:
        """Keep `model` on a device, with layers whose decisions can be reversed in place of its skimming layers."""
        self.model, self._device = model.to(device), device
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, SkimLSTM):
                    setattr(module, name, ForcedSkimLSTM.of(child))
        self._layers = [module for module in model.modules() if isinstance(module, ForcedSkimLSTM)]


class TextSubject(Subject):
    """A text classifier or cloze reader with the test split."""

    def __init__(self, run: RunConfig, prepared: Prepared, tokens: Path, folder: Path, device: torch.device) -> None:
        self._take(load_classifier(run, prepared, folder), device)
        self._config = run.model
        self._split = prepared.split("test")
        self._classes = prepared.manifest["classes"]
        self._folder = prepared.folder
        self._texts = read_parquet(tokens / "test.parquet", "tokens")["tokens"]
        spaces = pc.sum(pc.count_substring(self._texts, " ")).as_py()
        if (len(self._texts), spaces + len(self._texts)) != (len(self._split), len(self._split.tokens)):
            raise UserError(f"{tokens}: not the texts that {prepared.folder} was made from: give its tokenised folder")
        self.lengths = self._split.lengths.numpy()
        self.vocabulary_size = prepared.manifest["vocabulary_size"]

    def words(self, row: int) -> np.ndarray:
        """The word numbers of a text."""
        return self._split.tokens[self._split.offsets[row] : self._split.offsets[row + 1]].numpy()

    def tokens(self, row: int) -> list[str]:
        """The tokens of a text, in lower case as the model sees them."""
        text: str = self._texts[row].as_py()
        return text.split(" ")

    def answer_text(self, row: int, answer: np.ndarray) -> str:
        """The name of a class, or a candidate."""
        if self._split.candidates is None:
            return str(self._classes[int(answer[0])])
        word = int(self._split.candidates[row, int(answer[0])])
        return "an unknown word" if word == UNKNOWN else self._vocabulary[word]

    def right_answer(self, row: int) -> str:
        """The name of the right class, or the right candidate."""
        return self.answer_text(row, self._split.labels[row : row + 1].numpy())

    def flop_reduction(self, rows: np.ndarray, skim_rates: list[float]) -> FlopReduction:
        """Flop-r of the recurrent layer."""
        assert isinstance(self._config, SkimLSTMConfig)
        return flop_reduction(skim_rates[0], self._config.hidden_size, self._config.small_size)

    @cached_property
    def _vocabulary(self) -> list[str]:
        vocabulary: list[str] = read_json(self._folder / "vocabulary.json")
        return vocabulary

    def _answer(self, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, Decisions | None]:
        batch = collate(self._split, rows)
        logits, decisions = self.model(*batch.to(self._device).inputs)
        logits = logits.cpu()
        loss = functional.cross_entropy(logits.double(), batch.labels, reduction="none")
        scores = {"accuracy": credit(logits, batch.labels).numpy()}
        return scores, loss.numpy(), logits.argmax(dim=1, keepdim=True).numpy(), decisions


class QuestionSubject(Subject):
    """A reader with the questions of SQuAD's development set."""

    def __init__(
        self, run: RunConfig, prepared: Prepared, folder: Path, device: torch.device, *, unfinished: bool = False
    ) -> None:
        self._take(load_reader(run, prepared, folder, unfinished=unfinished).model, device)
        self._split = read_questions(prepared, SCORED_SPLIT)
        self._scoring = read_scoring(prepared)
        self._prepared = prepared
        self.lengths = self._split.lengths.numpy()
        self.vocabulary_size = prepared.manifest["vocabulary_size"]

    def words(self, row: int) -> np.ndarray:
        """The word numbers of a question's context."""
        return self._split.tokens[self._span(int(self._split.contexts[row]))].numpy()

    def tokens(self, row: int) -> list[str]:
        """The tokens of a question's context, in their case."""
        return self._words_of(int(self._split.contexts[row]))

    def question(self, row: int) -> str:
        """The question itself."""
        return self._scoring.texts[int(self._split.questions[row])]

    def span(self, row: int) -> tuple[int, int]:
        """The first and last token of the right answer, -1 where it is unusable."""
        return int(self._split.first[row]), int(self._split.last[row])

    def answer_text(self, row: int, answer: np.ndarray) -> str:
        """The characters of the context from one token to another."""
        return self._scoring.cut(self._split, row, int(answer[0]), int(answer[1]))

    def right_answer(self, row: int) -> str:
        """The first of the right answers."""
        return self._scoring.answers[row][0]

    def flop_reduction(self, rows: np.ndarray, skim_rates: list[float]) -> FlopReduction:
        """Flop-r of the whole model; questions count as skimmed at the rate of the contexts."""
        assert isinstance(self.model, Reader)
        rates = dict(zip(self.directions, skim_rates, strict=True))
        rates |= {name: rates[same] for name, same in zip(self.model.question_sequences, rates, strict=False)}
        return reading_operations(self.model, self._split.at(torch.from_numpy(rows)), rates, self._prepared)[1]

    def _span(self, text: int) -> slice:
        return slice(int(self._split.offsets[text]), int(self._split.offsets[text + 1]))

    def _words_of(self, text: int) -> list[str]:
        span, characters = self._span(text), self._scoring.texts[text]
        places = zip(self._scoring.starts[span].tolist(), self._scoring.stops[span].tolist(), strict=True)
        return [characters[start:stop] for start, stop in places]

    def _answer(self, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, Decisions | None]:
        batch = collate_questions(self._split, rows)
        on_device = batch.to(self._device)
        start, end, decisions, _ = self.model(on_device.questions, on_device.contexts)
        start, end = start.cpu(), end.cpu()
        usable = batch.first >= 0
        loss = sum(
            functional.cross_entropy(logits.double(), place.clamp(min=0), reduction="none")
            for logits, place in ((start, batch.first), (end, batch.last))
        )
        answers = torch.stack(decode_jointly(start, end), dim=1).numpy()
        scored = [
            score_answers([self.answer_text(row, answer)], [self._scoring.answers[row]])
            for row, answer in zip(rows.tolist(), answers, strict=True)
        ]
        f1, em = np.array(scored).T
        return {"f1": f1, "em": em}, torch.where(usable, loss, torch.nan).numpy(), answers, decisions


def open_subject(
    run: RunConfig, prepared: Prepared, tokens: Path | None, folder: Path, device: torch.device, unfinished: bool
) -> Subject:
    """The subject of a run; a classifier needs the folder of its tokenised texts."""
    if isinstance(run.model, ReaderConfig):
        return QuestionSubject(run, prepared, folder, device, unfinished=unfinished)
    if unfinished:
        raise UserError("only a reader can be analysed before it is finished: leave --unfinished out")
    if tokens is None:
        raise UserError("a classifier's texts are analysed, too: name their tokenised folder with --tokens")
    return TextSubject(run, prepared, tokens, folder, device)
