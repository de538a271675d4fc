"""What claims and curves are made from: the records of a scale, the analyses beside them, the layers' benchmark."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skimrnn.analysis.artefact import Analysis
from skimrnn.benchmarks.gpu import GPUReport
from skimrnn.benchmarks.latency import Report
from skimrnn.config import Config, ModelConfig
from skimrnn.data.registry import DATASETS, Task
from skimrnn.files import read_model
from skimrnn.reporting.records import Results, Run, read_task_results

_SCORE = {"classification": "accuracy", "question_answering": "f1"}


@dataclass(frozen=True)
class Evidence:
    """All that was run at one scale. `analyses` holds those that are there, by dataset, model and seed."""

    config: Config
    results: dict[Task, Results[Any]]
    analyses: dict[tuple[str, str, int], Analysis]
    benchmark: Report | None
    gpu_benchmark: GPUReport | None

    def of(self, dataset: str) -> Results[Any] | None:
        """The results of a dataset's task, if the scale has the dataset."""
        return self.results[DATASETS[dataset].task] if dataset in self.config.datasets else None

    def score_name(self, dataset: str) -> str:
        """What a dataset's models are scored by: `accuracy` or `f1`."""
        return _SCORE[DATASETS[dataset].task]

    def finished(self, dataset: str, model: str) -> dict[int, Run[Any]]:
        """The runs of one model whose training ended, by seed."""
        results = self.of(dataset)
        runs = results.of_model(dataset, model) if results else ()
        return {run.record.config.seed: run for run in runs if run.record.training.stopped != "unfinished"}

    def models(self, dataset: str, chosen: Callable[[ModelConfig], bool]) -> dict[str, Any]:
        """The models of a dataset that are `chosen`, by name."""
        if dataset not in self.config.datasets:
            return {}
        return {name: model for name, model in self.config.models_of(dataset).items() if chosen(model)}

    def beside_standard(
        self, dataset: str, chosen: Callable[[ModelConfig], bool], standard: Callable[[ModelConfig], bool]
    ) -> Iterator[tuple[str, str]]:
        """The `chosen` models of a dataset, each with the `standard` one of the same d, by name."""
        for name, model in self.models(dataset, chosen).items():
            for reference, other in self.models(dataset, standard).items():
                if other.hidden_size == model.hidden_size:
                    yield name, reference

    def analysed(self, dataset: str, model: str) -> dict[int, Analysis]:
        """The analyses of the runs of one model whose training ended, by seed."""
        return {
            seed: self.analyses[dataset, model, seed]
            for seed in self.finished(dataset, model)
            if (dataset, model, seed) in self.analyses
        }


def read_evidence(config: Config, folder: Path) -> Evidence:
    """Read the records of every task, their analyses and the benchmark below the folder of all results."""
    results = {task: read_task_results(config, task, folder) for task in config.tasks}
    analyses = {key: analysis for task in results.values() for key, analysis in task.analyses.items()}
    cpu, gpu = folder / "benchmark" / "cpu.json", folder / "benchmark" / "gpu.json"
    return Evidence(
        config,
        results,
        analyses,
        read_model(cpu, Report) if cpu.exists() else None,
        read_model(gpu, GPUReport) if gpu.exists() else None,
    )
