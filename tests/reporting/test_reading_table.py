"""The question answering table: the paper's fifteen rows, ours beside them, and how far each one was trained."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skimrnn.benchmarks.speedup import WHOLE, ModelSpeed
from skimrnn.benchmarks.timing import summarise
from skimrnn.cli import app
from skimrnn.config import Config, read_config
from skimrnn.errors import UserError
from skimrnn.files import write_json
from skimrnn.reporting.figures import READING_FIGURES
from skimrnn.reporting.reading_table import READING_COLUMNS, reading_rows
from skimrnn.reporting.records import Results, read_reading_results, read_task_results
from skimrnn.reporting.table_formats import latex, markdown, terminal, tidy_csv
from skimrnn.training.record import ReadingRecord, Record
from tests.conftest import ROOT
from tests.reporting.conftest import build_speed, reading_record, store_record

TITLES = [
    *("LSTM+Att, 1 layer, d = 100", "LSTM+Att, d = 50", "LSTM+Att, d = 100", "Sk-LSTM+Att 0/.1, d = 100"),
    *("Sk-LSTM+Att 0/.2, d = 100", "Sk-LSTM+Att 20/.05, d = 100", "Sk-LSTM+Att 20/.1, d = 100"),
    *("Sk-LSTM+Att 20/.2, d = 100", "VCRNN", "BiDAF, d = 30", "BiDAF, d = 50", "BiDAF, d = 100"),
    *("Sk-BiDAF 50/.01, d = 100", "Sk-BiDAF 50/.001, d = 100", "SOTA"),
]


@pytest.fixture
def config() -> Config:
    return read_config(ROOT / "config" / "paper.yaml")


@pytest.fixture
def grid(config: Config, tmp_path: Path) -> Path:
    for seed, f1 in ((0, 0.70), (1, 0.74)):
        store_record(tmp_path, reading_record(config, "lstm_att", seed, f1))
    store_record(tmp_path, reading_record(config, "sk_lstm_att-20-0.1", 0, 0.65, "unfinished"))
    return tmp_path


@pytest.fixture
def results(config: Config, grid: Path) -> Results[ReadingRecord]:
    return read_reading_results(config, grid)


def test_the_rows_are_those_of_the_paper_in_its_order(config: Config, tmp_path: Path) -> None:
    rows = reading_rows(read_reading_results(config, tmp_path), "squad")
    assert [row.title for row in rows] == TITLES
    for row in rows:
        ours = {entry.ours_text for entry in row.entries if entry.column.metric in ("f1", "em")}
        assert ours == ({"-"} if row.title in ("VCRNN", "SOTA") else {"not run"})


def test_cells_hold_the_papers_number_and_ours(results: Results[ReadingRecord]) -> None:
    rows = {row.title: [str(entry) for entry in row.entries] for row in reading_rows(results, "squad")}
    assert rows["LSTM+Att, d = 100"] == [
        "75.5 | 72.0 ± 2.8 (2)",
        "67.0 | 62.0 ± 2.8 (2)",
        *("-", "1.0x | 1.7x ± 0.0 (2)", "- | 1.4x ± 0.0 (2)", "-"),
    ]
    unfinished = "Sk-LSTM+Att 20/.1, d = 100 (stands at step 4,000 of 25,000)"
    assert rows[unfinished][:3] == ["75.3 | 65.0 (1)", "66.0 | 55.0 (1)", "56.2 | 45.0 (1)"]
    assert rows["Sk-BiDAF 50/.01, d = 100"][0] == "76.9 | not run"
    assert rows["Sk-BiDAF 50/.01, d = 100"][-1] == "- | not run"


def test_a_row_says_where_its_runs_stand(config: Config, tmp_path: Path) -> None:
    def title() -> str:
        return next(row.title for row in reading_rows(read_reading_results(config, tmp_path), "squad") if row.seeds)

    for seed, steps in ((0, 4_000), (1, 5_000), (2, 4_500)):
        record = reading_record(config, "sk_lstm_att-20-0.1", seed, 0.65, "unfinished")
        training = record.training.model_copy(update={"steps": steps})
        store_record(tmp_path, record.model_copy(update={"training": training}))
    assert title() == "Sk-LSTM+Att 20/.1, d = 100 (stands at step 4,000 to 5,000 of 25,000)"
    store_record(tmp_path, reading_record(config, "sk_lstm_att-20-0.1", 0, 0.65))
    assert title() == "Sk-LSTM+Att 20/.1, d = 100 (2 of 3 stand at step 4,500 to 5,000 of 25,000)"


def test_a_speedup_stands_in_the_row_of_the_model_that_was_timed(results: Results[ReadingRecord]) -> None:
    timed = ModelSpeed(skim_rate=0.5, lstm={WHOLE: summarise([3.0] * 5)}, skim={WHOLE: summarise([2.0] * 5)})
    speed = build_speed("squad", {"sk_lstm_att-20-0.1": {0: timed}})
    rows = reading_rows(replace(results, speeds={"squad": speed}), "squad")
    cells = {row.name: str(row.entries[-1]) for row in rows}
    assert cells["sk_lstm_att-20-0.1"] == "- | 1.5x (1)"
    assert cells["lstm_att"] == cells["vcrnn"] == "-"
    assert cells["sk_lstm_att-0-0.1"] == "- | not run"


def test_a_model_that_the_paper_lacks_is_a_row_of_its_own(config: Config, tmp_path: Path) -> None:
    wide = config.models["lstm_att"].model_copy(update={"hidden_size": 300})
    config = config.model_copy(update={"models": {**config.models, "wide": wide}})
    store_record(tmp_path, reading_record(config, "wide", 0, 0.8))
    rows = reading_rows(read_reading_results(config, tmp_path), "squad")
    assert [row.title for row in rows] == [*TITLES, "LSTM+Att, d = 300"]
    assert str(rows[-1].entries[0]) == "- | 80.0 (1)"


def test_models_that_share_a_row_of_the_paper_have_one_each(config: Config, tmp_path: Path) -> None:
    scratch = config.models["sk_lstm_att-20-0.1"].model_copy(update={"init_from": None})
    config = config.model_copy(update={"models": {**config.models, "scratch": scratch}})
    store_record(tmp_path, reading_record(config, "sk_lstm_att-20-0.1", 0, 0.7))
    store_record(tmp_path, reading_record(config, "scratch", 0, 0.6))
    rows = [row for row in reading_rows(read_reading_results(config, tmp_path), "squad") if "20/.1" in row.title]
    assert [(row.title, row.name, str(row.entries[0])) for row in rows] == [
        ("Sk-LSTM+Att 20/.1, d = 100, sk_lstm_att-20-0.1", "sk_lstm_att-20-0.1", "75.3 | 70.0 (1)"),
        ("Sk-LSTM+Att 20/.1, d = 100, scratch", "scratch", "75.3 | 60.0 (1)"),
    ]


def test_no_format_loses_a_cell(results: Results[ReadingRecord]) -> None:
    plain = {"\\|": "|", "$|$": "|", "$\\pm$": "±"}
    for document in (markdown(results), latex(results)):
        for escaped, character in plain.items():
            document = document.replace(escaped, character)
        for row in reading_rows(results, "squad"):
            assert row.title in document and all(str(entry) in document for entry in row.entries)
    lines = list(csv.DictReader(io.StringIO(tidy_csv(results))))
    assert len(lines) == 15 * len(READING_COLUMNS)
    (line,) = (line for line in lines if line["model"] == "sk_lstm_att-20-0.1" and line["metric"] == "skim_rate")
    assert (line["d"], line["d_small"], line["gamma"], line["published"]) == ("100", "20", "0.1", "56.2")
    assert float(line["measured_mean"]) == pytest.approx(45.0)
    assert max(map(len, terminal(results).splitlines())) <= 160
    assert all(title.split(" (")[0] in terminal(results) for title in TITLES)


def test_records_of_another_task_are_a_user_error(
    config: Config, make_record: Callable[..., Record], make_config: Callable[..., Config], tmp_path: Path
) -> None:
    record = make_record(make_config(), "sst", "lstm", 0)
    write_json(tmp_path / "paper/squad/lstm_att/0.json", record.model_dump(mode="json"))
    with pytest.raises(UserError, match=r"squad/lstm_att/0\.json: not a reading record of this version"):
        read_reading_results(config, tmp_path)


def test_the_verbs_report_both_tasks(config: Config, grid: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "config.yaml", config.model_dump(mode="json"))
    common = ["--config", str(tmp_path / "config.yaml"), "--results", str(grid)]
    report = tmp_path / "report"
    run = CliRunner().invoke
    printed = run(app, ["table", *common, "--output", str(report)])
    assert printed.exit_code == 0 and "Sk-BiDAF" in printed.output and "Skim 10/.02" in printed.output
    assert run(app, ["figures", *common, "--output", str(report)]).exit_code == 0
    assert run(app, ["page", *common, "--figures", str(report), "--output", str(report / "index.html")]).exit_code == 0
    html = (report / "index.html").read_text()
    for part in (
        "Text classification, paper scale",
        "Question answering, paper scale",
        "72.0 ± 2.8 (2)",
        "stands at step",
    ):
        assert part in html
    for task in config.tasks:
        assert (report / f"{read_task_results(config, task, grid).config.tasks[0]}.md").exists()
    assert all((report / f"{kind.name}.png").exists() for kind in READING_FIGURES)
