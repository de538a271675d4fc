import csv
import io
import re
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from skimrnn.benchmarks.speedup import ModelSpeed
from skimrnn.benchmarks.timing import Timing, summarise
from skimrnn.config import Config
from skimrnn.published import published_value
from skimrnn.reporting.records import Results, read_results
from skimrnn.reporting.systems import system_titles
from skimrnn.reporting.table import COLUMNS, table_caption, table_rows
from skimrnn.reporting.table_formats import latex, markdown, terminal, tidy_csv, write_tables
from skimrnn.training.record import Record
from tests.reporting.conftest import build_speed


@pytest.fixture
def results(config: Config, grid: Path) -> Results:
    return read_results(config, grid)


def texts(results: Results, dataset: str) -> dict[str, list[str]]:
    return {row.title: [str(entry) for entry in row.entries] for row in table_rows(results, dataset)}


def test_the_rows_are_those_of_the_paper(results: Results):
    skim = ["Skim 5/.01", "Skim 10/.01", "Skim 5/.02", "Skim 10/.02"]
    assert list(texts(results, "sst")) == ["Standard", *skim, "LSTM-Jump", "VCRNN", "SOTA"]


def test_a_dataset_has_rows_for_its_own_models_alone(make_config: Callable[..., Config], grid: Path):
    datasets = {"sst": {"batch_size": 32, "models": ["skim-5-0.02", "lstm"]}, "imdb": {"batch_size": 128}}
    results = read_results(make_config(datasets=datasets), grid)
    assert list(texts(results, "sst")) == ["Standard", "Skim 5/.02", "LSTM-Jump", "VCRNN", "SOTA"]
    assert "Records: 4 of 6." in table_caption(results, "sst")
    assert len(texts(results, "imdb")) == 8


def test_titles_come_from_the_settings_not_from_the_names(make_config: Callable[..., Config]):
    models = {
        "skim-99-0.5": {"architecture": "skim_lstm", "hidden_size": 100, "small_size": 0, "gamma": 0},
        "big": {"architecture": "lstm", "hidden_size": 200},
    }
    assert list(system_titles(make_config(models=models)).values()) == ["Skim 0/0, d = 100", "Standard, d = 200"]


def test_models_that_share_their_settings_are_told_apart_by_name(make_config: Callable[..., Config]):
    reader = {"architecture": "lstm_att", "hidden_size": 100}
    config = make_config(datasets={"squad": {"batch_size": 32}}, models={"a": reader, "b": reader | {"dropout": 0.1}})
    assert list(system_titles(config).values()) == ["LSTM+Att (a)", "LSTM+Att (b)"]


def test_each_cell_holds_the_papers_number_and_the_sample_statistics_of_ours(results: Results):
    values = [100 * run.record.test.accuracy for run in results.of_model("sst", "skim-5-0.01")]
    expected = f"86.4 | {statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} (3)"
    assert texts(results, "sst")["Skim 5/.01"][0] == expected


def test_one_seed_has_no_spread(results: Results):
    assert re.fullmatch(r"85\.6 \| \d\d\.\d \(1\)", texts(results, "sst")["Skim 5/.02"][0])


def test_what_was_not_run_says_so_beside_the_papers_number(results: Results):
    assert texts(results, "sst")["Skim 10/.02"] == [
        *("86.4 | not run", "68.0 | not run", "3.0x | not run", "- | not run"),
        *("1.7x | not run", "- | not run", "- | not run"),
    ]
    assert all("not run" in cell for cell in texts(results, "imdb")["Skim 5/.01"])
    assert texts(results, "imdb")["Standard"][0] == "91.1 | not run"


def test_the_standard_rows_ratios_are_one_by_definition(results: Results):
    assert texts(results, "sst")["Standard"][1:] == [
        *("-", "1.0x | 1.0x", "- | 1.0x"),
        *("1.0x | 1.0x", "- | 1.0x", "- | 1.0x"),
    ]


def test_speedups_stand_beside_the_papers_by_the_way_they_were_measured(results: Results):
    assert texts(results, "sst")["Skim 5/.01"][-3:] == ["1.4x | not run", "- | not run", "- | not run"]

    def timings(seconds: float) -> dict[str, Timing]:
        return {way: summarise([seconds * factor] * 5) for way, factor in (("numpy", 4), ("demand", 2), ("folded", 1))}

    standard = timings(3.0) | {"numpy": summarise([6.0] * 5)}
    model = {seed: ModelSpeed(skim_rate=0.5, lstm=standard, skim=timings(1.0 + seed)) for seed in (0, 1)}
    speed = build_speed("sst", {"skim-5-0.01": model})
    timed = replace(results, speeds={"sst": speed})
    # 6 / 4 and 6 / 8; 6 / 2 and 6 / 4; 3 / 1 and 3 / 2.
    assert texts(timed, "sst")["Skim 5/.01"][-3:] == [
        *("1.4x | 1.1x ± 0.5 (2)", "- | 2.2x ± 1.1 (2)", "- | 2.2x ± 1.1 (2)"),
    ]
    assert texts(timed, "sst")["Skim 10/.01"][-1] == "- | not run"
    machine = speed.environment.model_copy(update={"cpu": "A Processor, 4 cores", "git_commit": "12345678" * 5})
    elsewhere = replace(results, speeds={"sst": speed.model_copy(update={"environment": machine})})
    assert "Sp: 1 text, A Processor, 4 cores, plain, commit 12345678" in table_caption(elsewhere, "sst")
    assert "Sp: " not in table_caption(results, "sst")


def test_the_paper_has_no_standard_lstm_of_another_size(make_config: Callable[..., Config], tmp_path: Path):
    models = {f"lstm-{size}": {"architecture": "lstm", "hidden_size": size} for size in (100, 200)}
    found = texts(read_results(make_config(models=models), tmp_path), "sst")
    assert found["Standard, d = 100"] == ["86.4 | not run", "-", *["1.0x | not run", "- | not run"] * 2, "- | not run"]
    assert found["Standard, d = 200"] == ["- | not run", "-", *["- | not run"] * 5]


def test_cited_systems_have_published_values_only(results: Results):
    assert texts(results, "sst")["VCRNN"] == ["81.9 | -", "-", "2.6x | -", "-", "-", "-", "-"]
    for dataset in results.config.datasets:
        assert all(
            entry.ours is None for row in table_rows(results, dataset) if row.model is None for entry in row.entries
        )


def test_the_paper_prints_nothing_in_the_exact_count(results: Results):
    for row in table_rows(results, "sst"):
        for entry in row.entries:
            if entry.column.convention == "exact count" and row.title != "Standard":
                assert entry.published is None


def test_the_caption_says_where_the_numbers_come_from(results: Results):
    caption = table_caption(results, "sst")
    for part in (
        *("mirror, complete", "corpus (100 dimensions, window 8, min count 3)", "94.0 % of test tokens"),
        *("Seeds: 0, 1, 2", "Records: 10 of 15", "Kernel: reference", "Commits: 633f3029."),
    ):
        assert part in caption
    assert table_caption(results, "imdb") == "No records: not run."


def test_the_caption_says_what_is_incomplete_and_what_was_uncommitted(
    config: Config,
    make_record: Callable[..., Record],
    change: Callable[..., Record],
    store: Callable[..., Path],
    tmp_path: Path,
):
    record = make_record(config, "sst", "lstm", 0)
    for key, value in (
        ("data.complete", False),
        ("data.release.train.rows", 6_000),
        ("training.environment.git_dirty", True),
    ):
        record = change(record, key, value)
    store(record)
    caption = table_caption(read_results(config, tmp_path), "sst")
    assert "incomplete (train 6,000 of 6,920 rows)" in caption
    assert "633f3029 with uncommitted changes" in caption


def test_the_csv_has_full_precision_and_one_line_a_number(results: Results):
    lines = list(csv.DictReader(io.StringIO(tidy_csv(results))))
    systems = len(results.config.models) + 3
    assert len(lines) == len(results.config.datasets) * systems * len(COLUMNS)
    for line in lines:
        model = results.config.models.get(line["model"])
        runs = results.of_model(line["dataset"], line["model"])
        if line["metric"] == "accuracy" and model is not None:
            values = [100 * run.record.test.accuracy for run in runs]
            assert line["n"] == (str(len(values)) if values else "")
            assert line["seeds"] == " ".join(str(run.record.config.seed) for run in runs)
            assert not values or float(line["measured_mean"]) == pytest.approx(statistics.mean(values), rel=1e-5)
            assert len(values) < 2 or float(line["measured_sd"]) == pytest.approx(statistics.stdev(values), rel=1e-5)
            small, gamma = getattr(model, "small_size", None), getattr(model, "gamma", None)
            published = published_value(
                line["dataset"], model.architecture, "accuracy", model.hidden_size, small, gamma
            )
            assert float(line["published"]) == published


def test_the_csv_names_the_seeds_that_were_timed(results: Results):
    """Not those that were run."""
    seconds = dict.fromkeys(("numpy", "demand", "folded"), summarise([1.0]))
    timed = {seed: ModelSpeed(skim_rate=0.5, lstm=seconds, skim=seconds) for seed in (0, 2)}
    results = replace(results, speeds={"sst": build_speed("sst", {"skim-5-0.01": timed})})
    lines = csv.DictReader(io.StringIO(tidy_csv(results)))
    own = [line for line in lines if (line["dataset"], line["model"]) == ("sst", "skim-5-0.01")]
    assert {line["seeds"] for line in own if line["metric"] == "speedup"} == {"0 2"}
    assert {line["n"] for line in own if line["metric"] == "speedup"} == {"2"}
    assert {line["n"] for line in own if line["metric"] == "accuracy"} == {"3"}


def test_no_format_loses_a_cell(results: Results):
    plain_bar = {"\\|": "|", "$|$": "|", "$\\pm$": "±"}
    for document in (markdown(results), terminal(results), latex(results)):
        for escaped, plain in plain_bar.items():
            document = document.replace(escaped, plain)
        for dataset in results.config.datasets:
            for cells in texts(results, dataset).values():
                assert all(cell in document for cell in cells)


def test_markdown_rows_have_as_many_cells_as_the_heading(results: Results):
    lines = [line for line in markdown(results).splitlines() if line.startswith("|")]
    assert len(lines) == len(results.config.datasets) * (2 + len(results.config.models) + 3)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(COLUMNS) + 2}


def test_latex_escapes_what_it_must(results: Results):
    document = latex(results)
    lines = [line for line in document.splitlines() if not line.startswith("% ")]
    assert not re.search(r"(?<!\\)[%#_]", "\n".join(lines))
    assert document.isascii()
    assert document.count("{") == document.count("}")
    for block in ("table", "tabular"):
        assert document.count(f"\\begin{{{block}}}") == document.count(f"\\end{{{block}}}") == 2
    assert {line.count("&") for line in lines if line.endswith(r"\\")} == {len(COLUMNS)}


def test_the_terminal_table_fits(results: Results):
    assert max(map(len, terminal(results).splitlines())) <= 160


def test_synthetic_corpora_are_announced(
    make_config: Callable[..., Config],
    make_record: Callable[..., Record],
    store: Callable[..., Path],
    results: Results,
    tmp_path: Path,
):
    config = make_config(scale="smoke", data={"source": "embedded"})
    store(make_record(config, "sst", "lstm", 0))
    synthetic = read_results(config, tmp_path)
    for document in (markdown, terminal, latex):
        text = document(synthetic).replace("\n", " ")
        assert "synthetic stand-ins" in text and "Data: embedded, synthetic, 100 training rows" in text
        assert "synthetic" not in document(results)


def test_equal_records_give_equal_files(results: Results, tmp_path: Path):
    for folder in ("one", "two"):
        write_tables(results, tmp_path / folder)
    for name in ("classification.md", "classification.csv", "classification.tex"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
