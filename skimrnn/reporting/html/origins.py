"""Where a number on the page comes from: the files behind it, and what each of them says of itself."""

from dataclasses import dataclass, field
from pathlib import Path

from skimrnn.benchmarks.speedup import Speed
from skimrnn.counts import count_of
from skimrnn.data.registry import get_dataset
from skimrnn.provenance import Environment
from skimrnn.reporting.records import Run
from skimrnn.training.record import Record, read_timing

STOPPED_BY = {"patience": "patience", "max_steps": "step limit", "unfinished": "not finished"}


@dataclass(frozen=True)
class Part:
    """One of the values that a number is made of, such as that of one seed, and the key of its source."""

    label: str
    value: str
    source: str


@dataclass(frozen=True)
class Origin:
    """What stands in one cell, how it came about, and from which parts."""

    title: str
    number: str
    note: str
    parts: tuple[Part, ...] = ()


@dataclass
class Origins:
    """The origins of all cells of a page, numbered, and the facts of their sources: what the page's script shows."""

    origins: list[Origin] = field(default_factory=list)
    sources: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, origin: Origin) -> int:
        """Keep an origin; gives its number."""
        self.origins.append(origin)
        return len(self.origins) - 1

    def source(self, path: Path, facts: dict[str, str], part: str = "") -> str:
        """Keep what a file, or a part of it, says of itself; gives its key."""
        file = file_text(path)
        key = f"{file} {part}".strip()
        self.sources.setdefault(key, {"File": file, **facts})
        return key

    def run(self, run: Run) -> str:
        """Keep the facts of a run; gives their key."""
        return self.source(run.path, run_facts(run))

    def as_json(self) -> dict[str, object]:
        """Everything, as JSON values, for the page's script.

        An origin is [title, number, its note, [[label, value, its source] of each part]]: notes and sources stand once
        and are numbered, because each is that of many.
        """
        notes = {note: number for number, note in enumerate(dict.fromkeys(origin.note for origin in self.origins))}
        sources = {key: number for number, key in enumerate(self.sources)}
        return {
            "origins": [
                [
                    origin.title,
                    origin.number,
                    notes[origin.note],
                    [[part.label, part.value, sources[part.source]] for part in origin.parts],
                ]
                for origin in self.origins
            ],
            "notes": list(notes),
            "sources": list(self.sources.values()),
        }


def file_text(path: Path) -> str:
    """A file of results as the page names it, from the folder `results` on: no folder of this machine."""
    depth = {"speed.json": 4, "datasets.json": 3, "cpu.json": 3, "gpu.json": 3}.get(path.name, 5)
    return "/".join(path.parts[-depth:])


def run_facts(run: Run) -> dict[str, str]:
    """What a record says of one run."""
    record, timing = run.record, read_timing(run.path)
    data, training, test = record.data, record.training, record.test
    vectors = data.vectors
    scored, where = ("test text", "") if isinstance(record, Record) else ("question", " of the development set")
    return {
        "Scored on": f"{count_of(test.examples, scored)}{where}, {count_of(test.tokens, 'token')}",
        "Data": f"{data.source}{'' if data.complete else ', incomplete'}",
        "Data digest": data.digest,
        "Word vectors": f"{vectors.source}, {count_of(vectors.dimension, 'dimension')}, SHA-256 {vectors.sha256[:16]}",
        "Training": f"{count_of(training.steps, 'step')}, best at {training.best_step:,}",
        "Stopped by": STOPPED_BY[training.stopped],
        "Wall time": f"{duration(timing.wall_seconds)} (min:s), {timing.peak_memory_mib:,} MiB",
        **environment_facts(training.environment, record.kernel),
    }


def speed_facts(speed: Speed) -> dict[str, str]:
    """What a file of measured speed-ups says of itself."""
    if get_dataset(speed.dataset).task == "question_answering":
        texts = f"contexts of {count_of(speed.texts, 'question')}, {count_of(speed.tokens, 'token')}, in batches"
    else:
        texts = f"{count_of(speed.texts, 'test text')}, {count_of(speed.tokens, 'token')}, batch 1"
    return {
        "Timed on": texts,
        "Data digest": speed.data_digest,
        **environment_facts(speed.environment, speed.isa or "none compiled"),
    }


def environment_facts(environment: Environment, kernel: str) -> dict[str, str]:
    """The machine, the code and the kernel."""
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    return {
        "Hardware": f"{environment.gpu or environment.cpu}; {count_of(environment.threads, 'thread')}",
        "Kernel": environment.kernel or kernel,
        "Commit": environment.commit_text(),
        "Digest of the code": environment.code_digest[:16],
        "Software": f"Python {environment.python}, {packages}",
    }


def duration(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
