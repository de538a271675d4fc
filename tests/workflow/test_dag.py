"""The DAG itself: what it plans, what makes it run again, and that its result does not depend on interruptions."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from skimrnn.files import write_json
from tests.conftest import ROOT
from tests.workflow.conftest import SHORT, copy_project, environment_of, snakemake


def planned(folder: Path, *arguments: str) -> dict[str, int]:
    """Jobs of each rule that a dry run plans."""
    process = snakemake(folder, "-n", "--quiet", "rules", *arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", process.stdout, re.MULTILINE)}


REPORT = {"tabulate_results", "try_claims", "draw_figures", "build_page"}
RUN = REPORT | {"train_model", "evaluate_model", "analyse_model", "measure_speed"}


def test_the_paper_scale_is_the_default_and_plans_the_whole_grid_quickly(tmp_path: Path) -> None:
    folder = copy_project(tmp_path)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    jobs = planned(folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor, not of the clock, which other work on the machine moves on, too.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20
    classifiers, readers = 2 * 16 * 5 + 4 * 5 * 3, 13 * 3
    assert jobs["train_model"] == jobs["analyse_model"] == classifiers + readers
    assert (jobs["evaluate_model"], jobs["evaluate_reader"]) == (classifiers, readers)
    assert jobs["train_first_steps"] == 2 * 3  # One a seed of LSTM+Att and of BiDAF, however many runs start from it.
    assert jobs["fetch_dataset"] == jobs["tokenise_dataset"] == jobs["prepare_dataset"] == 7
    assert set(jobs) > REPORT
    with_stand_ins = planned(folder, "--config", "data={source: mirror, mirror: hub}")
    assert with_stand_ins["train_model"] == classifiers + readers + 2 * 5
    assert with_stand_ins["fetch_dataset"] == 9
    assert planned(folder, "--config", "models={skim-5-0.01: {gamma: 0.05}}") == jobs


def test_the_pipeline_ends_in_records_tables_figures_and_a_page(finished: Path) -> None:
    records = sorted(path.relative_to(finished).as_posix() for path in (finished / "results").rglob("*.json"))
    runs = [
        f"results/test/sst/{model}/0{kind}.json" for model in ("lstm", "skim") for kind in (".analysis", "", ".timing")
    ]
    assert records == [*runs, "results/test/sst/speed.json"]
    for name in (
        "index.html",
        "claims.md",
        "confidence.md",
        "classification.md",
        "classification.csv",
        "classification.tex",
    ):
        assert (finished / "reports" / "test" / name).stat().st_size > 0
    assert list((finished / "reports" / "test" / "figures").glob("*.svg"))
    record = json.loads((finished / "results/test/sst/skim/0.json").read_text())
    table = (finished / "reports/test/classification.md").read_text()
    assert f"{100 * record['test']['accuracy']:.1f} (1)" in table


def test_snakemakes_own_report_shows_tables_figures_and_page(finished: Path) -> None:
    process = snakemake(finished, *SHORT, "--report", "report.html")
    assert process.returncode == 0, process.stdout + process.stderr
    html = (finished / "report.html").read_text()
    for name in ("classification.csv", "figures/skim_rate.svg", "index.html"):
        assert f"reports/test/{name}" in html
    for category, caption in {"Tables": "as tidy CSV", "Figures": "Drawn from the", "Page": "as one page"}.items():
        assert f'"{category}"' in html and caption in html


def test_a_second_run_does_nothing(finished: Path) -> None:
    assert planned(finished, *SHORT) == {}


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("reporting/table.py", REPORT),
        ("training/train.py", RUN),
        ("kernels/reference.py", RUN),
        ("measures/flops.py", REPORT | {"evaluate_model", "analyse_model"}),
        ("benchmarks/timing.py", REPORT - {"draw_figures"} | {"measure_speed"}),
        ("data/tokens.py", RUN | {"tokenise_dataset", "make_vectors", "prepare_dataset"}),
        ("data/prepare.py", RUN | {"prepare_dataset"}),
    ],
)
def test_editing_code_runs_the_rules_that_use_it_and_no_others(module: str, rules: set[str], finished: Path) -> None:
    path = finished / "skimrnn" / module
    before = path.read_text()
    try:
        path.write_text(before + "\n# edited\n")
        assert set(planned(finished, *SHORT)) - {"all", "total"} == rules
    finally:
        path.write_text(before)


def test_changing_a_setting_runs_the_rules_that_use_it(finished: Path) -> None:
    jobs = planned(finished, *SHORT, "--config", "training={clip_norm: 1.0}")
    assert set(jobs) - {"all", "total"} == RUN


def test_records_that_are_there_count_as_finished(finished: Path, tmp_path: Path) -> None:
    """A clone that holds records but no data plans the report alone."""
    folder = copy_project(tmp_path)
    shutil.copy(finished / "config" / "short.yaml", folder / "config")
    shutil.copytree(finished / "results", folder / "results")
    assert set(planned(folder, *SHORT)) - {"all", "total"} == REPORT
    process = snakemake(folder, *SHORT)
    assert process.returncode == 0, process.stdout + process.stderr
    for name in ("classification.md", "index.html"):
        made = [(place / "reports" / "test" / name).read_bytes() for place in (folder, finished)]
        assert made[0] == made[1]


def test_a_dataset_that_is_not_finished_does_not_run_those_that_are(finished: Path, tmp_path: Path) -> None:
    """In a clone the word vectors are made anew for the one, which the others were not trained with."""
    folder = copy_project(tmp_path)
    config = yaml.safe_load((finished / "config" / "short.yaml").read_text())
    config["datasets"]["rotten_tomatoes"] = config["datasets"]["sst"]
    config["vectors"] |= {"source": "corpus"}
    (folder / "config" / "short.yaml").write_text(yaml.safe_dump(config))
    shutil.copytree(finished / "results", folder / "results")
    jobs = planned(folder, *SHORT)
    assert jobs["train_model"] == jobs["evaluate_model"] == 2 and jobs["prepare_dataset"] == 1
    assert jobs["tokenise_dataset"] == 2  # The vectors are trained on the texts of both.
    (folder / "results" / "test" / "sst" / "skim" / "0.json").unlink()
    assert planned(folder, *SHORT)["train_model"] == 4


@pytest.mark.skipif(
    not find_spec("snakemake_storage_plugin_fs"), reason="no storage plugin: pip install '.[kubernetes]'"
)
def test_results_in_a_volume_count_as_finished(finished: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "project").mkdir()
    copy_project(folder)
    config = yaml.safe_load((finished / "config" / "short.yaml").read_text())
    config["datasets"]["rotten_tomatoes"] = config["datasets"]["sst"]
    (folder / "config" / "short.yaml").write_text(yaml.safe_dump(config))
    storage = ("--default-storage-provider", "fs", "--default-storage-prefix", str(tmp_path / "volume"))
    shutil.copytree(finished / "results", tmp_path / "volume" / "results")
    assert planned(folder, *SHORT, *storage)["train_model"] == 2


def test_records_of_another_config_are_refused_at_once(finished: Path, tmp_path: Path) -> None:
    """In a clone, where Snakemake does not know what they were made from: the report would refuse them in the end."""
    folder = copy_project(tmp_path)
    shutil.copy(finished / "config" / "short.yaml", folder / "config")
    shutil.copytree(finished / "results", folder / "results")
    process = snakemake(folder, "-n", *SHORT, "--config", "training={clip_norm: 1.0}")
    output = process.stdout + process.stderr
    assert process.returncode != 0 and "Traceback" not in output
    assert "lstm/0.json: made with another config than the one given (training.clip_norm: " in output


def test_results_of_data_that_is_gone_are_made_again(finished: Path, tmp_path: Path) -> None:
    """As where a change had the prepared data removed, and the pipeline was killed before it was made anew."""
    folder = shutil.copytree(finished, tmp_path / "project")
    shutil.rmtree(folder / "data" / "prepared")
    assert planned(folder, *SHORT, "--config", "vectors={dimension: 9}")["train_model"] == 2


def test_an_image_has_its_own_python(finished: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "project").mkdir()
    copy_project(folder)
    shutil.copy(finished / "config" / "short.yaml", folder / "config")
    (folder / "skimrnn.sif").touch()
    (apptainer := tmp_path / "bin" / "apptainer").parent.mkdir()
    apptainer.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo apptainer version 1.4.0 || echo "$@" >> {tmp_path}/calls\n'
    )
    apptainer.chmod(0o755)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--software-deployment-method", "apptainer", *SHORT]
    environment = environment_of(folder)
    environment["PATH"] = f"{apptainer.parent}:{environment['PATH']}"
    subprocess.run([*command, "--", "data/raw/embedded/sst"], cwd=folder, env=environment, check=False)
    calls = (tmp_path / "calls").read_text()
    assert "python -m skimrnn fetch" in calls and "export PATH" not in calls


def test_other_files_of_a_mirror_or_of_vectors_are_read_again(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "project")
    for mirror, text in (("a", "good"), ("b", "better")):
        (folder / mirror / "SetFit" / "sst2").mkdir(parents=True)
        for split in ("train", "validation", "test"):
            table = pa.table({"text": [text, "bad"], "label": [1, 0]})
            pq.write_table(table, folder / mirror / "SetFit" / "sst2" / f"{split}.parquet")
    np.savez(folder / "vectors.npz", words=["good"], vectors=np.ones((1, 4), np.float32))

    def with_mirror(mirror: str) -> tuple[str, ...]:
        settings = (
            f"data={{source: mirror, mirror: {mirror}}}",
            "vectors={source: file, path: vectors.npz, dimension: 4}",
        )
        targets = ("data/raw/mirror/sst", "data/vectors/test.safetensors")
        return (*SHORT, "--config", *settings, "--", *targets)

    assert snakemake(folder, *with_mirror("a")).returncode == 0
    assert planned(folder, *with_mirror("a")) == {}
    assert set(planned(folder, *with_mirror("b"))) == {"fetch_dataset", "total"}
    pq.write_table(pa.table({"text": ["fine"], "label": [1]}), folder / "a" / "SetFit" / "sst2" / "test.parquet")
    assert set(planned(folder, *with_mirror("a"))) == {"fetch_dataset", "total"}
    assert snakemake(folder, *with_mirror("a")).returncode == 0
    assert planned(folder, *with_mirror("a")) == {}
    for other, again in (("imdb", set()), ("SetFit/sst2", {"fetch_dataset", "total"})):  # What the manifest says.
        entry = {"sha256": "0" * 64, "complete": None}
        write_json(folder / "a" / "manifest.json", {f"{other}/test.parquet": entry})
        assert set(planned(folder, *with_mirror("a"))) == again
    (folder / "a" / "manifest.json").write_text("[")
    process = snakemake(folder, "-n", *with_mirror("a"))
    assert process.returncode and "manifest.json: not valid JSON" in process.stdout + process.stderr
    (folder / "a" / "manifest.json").unlink()
    np.savez(folder / "vectors.npz", words=["good", "bad"], vectors=np.ones((2, 4), np.float32))
    assert set(planned(folder, *with_mirror("a"))) == {"make_vectors", "total"}


def test_in_an_image_the_workflow_and_its_commands_are_of_one_package(finished: Path, tmp_path: Path) -> None:
    folder, image = shutil.copytree(finished, tmp_path / "project"), tmp_path / "image"
    shutil.copytree(ROOT / "skimrnn", image / "skimrnn")
    # An editable installation, which the tests run in, comes before all paths.
    (image / "sitecustomize.py").write_text(
        "import sys\nsys.meta_path = [f for f in sys.meta_path if not type(f).__module__.startswith('_editable')]\n"
    )
    (folder / "skimrnn" / "__init__.py").write_text("raise RuntimeError('the package of the checkout')")
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", *SHORT]
    for safe, code in (("1", 0), ("", 1)):
        environment = environment_of(folder) | {"PYTHONPATH": str(image), "PYTHONSAFEPATH": safe}
        process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert process.returncode == code, process.stdout + process.stderr
    assert "the package of the checkout" in process.stdout + process.stderr


def test_another_benchmark_is_judged_and_shown(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "project")
    (folder / "results" / "benchmark").mkdir()
    (folder / "results" / "benchmark" / "cpu-other.json").write_text("{}")
    assert set(planned(folder, *SHORT)) == {"try_claims", "build_page", "all", "total"}


def test_counts_of_the_datasets_are_tabulated_and_shown(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "project")
    (folder / "results" / "test" / "datasets.json").write_text("[]")
    assert set(planned(folder, *SHORT)) == {"tabulate_results", "build_page", "all", "total"}


def test_a_record_that_is_missing_is_made_though_the_page_is_there(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "project")
    (folder / "results" / "test" / "sst" / "skim" / "0.json").unlink()
    assert {"evaluate_model"} | REPORT <= set(planned(folder, *SHORT))


def test_records_of_a_fleet_count_as_finished(finished: Path, tmp_path: Path) -> None:
    """Nothing is trained or scored again, and the records are those of the workflow to the byte."""
    folder = shutil.copytree(finished, tmp_path / "project")
    for part in ("results", "runs", "reports", "benchmarks", ".snakemake"):  # The last two hold its own runs' times.
        shutil.rmtree(folder / part)
    assert {"train_model", "evaluate_model"} <= set(planned(folder, *SHORT))
    process = subprocess.run(
        [sys.executable, "-m", "skimrnn.fleet", "--config", "config/short.yaml", "--device", "cpu"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert not {"train_model", "evaluate_model"} & set(planned(folder, *SHORT))
    for model in ("lstm", "skim"):
        record = f"results/test/sst/{model}/0.json"
        assert (folder / record).read_bytes() == (finished / record).read_bytes()


def test_a_mistake_in_the_config_is_one_line(finished: Path) -> None:
    process = snakemake(finished, "-n", *SHORT, "--config", "trainings={}")
    assert process.returncode != 0
    output = process.stdout + process.stderr
    assert "the workflow's config: trainings: unknown key: remove it or mend its spelling" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", "results/test/sst/skimm/0.json", "No rule to produce results/test/sst/skimm/0.json"),
        ("\nseeds: [1]\n", "all", "the key 'seeds' is given twice: remove one of them"),
        ("\ndata: {source: hub}\ndatasets: {cbt_mini_ne: {batch_size: 2}}\n", "all", "the hub has none of cbt_mini_ne"),
    ],
)
def test_a_mistake_of_another_kind_is_one_line_too(
    text: str, target: str, message: str, finished: Path, tmp_path: Path
) -> None:
    folder = copy_project(tmp_path)
    lines = (finished / "config" / "short.yaml").read_text()
    if "datasets" in text:
        values = yaml.safe_load(lines) | yaml.safe_load(text)
        lines, text = yaml.safe_dump(values), ""
    (folder / "config" / "short.yaml").write_text(lines + text)
    process = snakemake(folder, "-n", *SHORT, "--", target)
    output = process.stdout + process.stderr
    assert process.returncode != 0 and message in output and "Traceback" not in output


def test_a_failing_rule_shows_its_one_line_and_leaves_no_output(tmp_path: Path, finished: Path) -> None:
    folder = copy_project(tmp_path)
    shutil.copy(finished / "config" / "short.yaml", folder / "config")
    process = snakemake(folder, *SHORT, "--config", "data={source: mirror, mirror: nowhere}")
    assert process.returncode != 0
    assert "error: cannot read nowhere/SetFit/sst2/train.parquet: no such file" in process.stderr
    assert not list((folder / "data").rglob("manifest.json"))
    assert not (folder / "results").exists()


@pytest.mark.parametrize("command", [["snakemake", "--lint"], ["snakefmt", "--check", "Snakefile", "workflow"]])
def test_the_workflow_is_linted(command: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-m", *command]
        if command[0] == "snakemake"
        else [Path(sys.executable).parent / command[0], *command[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr


def test_data_prepare_makes_what_training_reads(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(finished, folder)
    prepared = folder / "data" / "prepared" / "test" / "sst"
    before = (prepared / "manifest.json").read_bytes()
    shutil.rmtree(prepared)
    process = subprocess.run(
        [sys.executable, "-m", "skimrnn", "data", "prepare", "sst", "--config", "config/short.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment_of(folder),
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert (prepared / "manifest.json").read_bytes() == before
