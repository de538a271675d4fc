import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from skimrnn.benchmarks import timing
from skimrnn.benchmarks.speedup import ModelSpeed
from skimrnn.cli import app
from skimrnn.config import Config, read_config
from skimrnn.errors import UserError
from skimrnn.files import write_json
from skimrnn.reporting.evidence import read_evidence
from skimrnn.reporting.figures import FIGURES
from skimrnn.reporting.html import page
from skimrnn.reporting.html.pictures import Picture
from skimrnn.reporting.html.summary import summarise
from skimrnn.reporting.records import read_reading_results, read_results
from skimrnn.reporting.table import table_rows
from skimrnn.training.record import Record, read_record
from tests.conftest import ROOT
from tests.reporting.conftest import HOSTILE, MODELS, build_analysis, build_speed, changed, reading_record, store_record


class Elements(HTMLParser):
    """The start tags of a page with their attributes, its text, the rows of its tables, and its script's data."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.data = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "input"}:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.data = self.data or data
        elif self.open[-1:] != ["style"]:
            self.text += data
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    folder = tmp_path / "figures"
    folder.mkdir()
    for kind in FIGURES:
        (folder / f"{kind.name}.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    return folder


@pytest.fixture
def write(config: Config, grid: Path, figures: Path, tmp_path: Path) -> Callable[[], str]:
    def written() -> str:
        path = tmp_path / "index.html"
        page.write_page(read_evidence(config, grid), grid, figures, path)
        return path.read_text()

    return written


def test_every_number_has_a_cell_of_its_own_and_says_where_it_comes_from(
    write: Callable[[], str], config: Config, grid: Path
):
    html = write()
    elements = Elements(html)
    assert elements.open == []
    rows = [[cell.strip() for cell in row] for row in elements.rows]
    results = read_results(config, grid)
    for dataset in config.datasets:
        for row in table_rows(results, dataset):
            cells = [row.title]
            for entry in row.entries:  # The exact count and our kernels' speed-ups are printed for no system.
                cells += [entry.paper_text, entry.ours_text] if entry.column.printed else [entry.ours_text]
            assert cells in rows
    data = json.loads(elements.data)
    origins = {title: (data["notes"][note], parts) for title, _, note, parts in data["origins"]}
    seeds = [0, 1, 2]
    accuracies = [f"{100 * read_record(grid / f'paper/sst/lstm/{seed}.json').test.accuracy:.2f}" for seed in seeds]
    _, parts = origins["SST, Standard: Acc (%), ours"]
    assert [value for _, value, _ in parts] == accuracies
    sources = [data["sources"][source] for _, _, source in parts]
    assert [source["File"] for source in sources] == [f"{grid.name}/paper/sst/lstm/{seed}.json" for seed in seeds]
    facts = {"Data digest": "3f" * 32, "Hardware": "some processor, 2 cores; 1 thread", "Kernel": "reference"}
    assert facts.items() <= sources[0].items() and sources[0]["Commit"].startswith("633f3029")
    assert "numbers.csv" in origins["SST, Standard: Acc (%), paper"][0]
    numbers = [int(attributes["data-origin"] or "") for tag, attributes in elements.tags if "data-origin" in attributes]
    assert sorted(numbers) == list(range(len(data["origins"])))
    assert str(grid.parent) not in html and "synthetic" not in html


def test_every_run_is_listed(write: Callable[[], str], config: Config, grid: Path):
    rows = Elements(write()).rows
    runs = read_results(config, grid).of_dataset("sst")
    listed = [row for row in rows if "633f3029" in row]
    assert len(listed) == len(runs)
    assert listed[0][:3] == ["SST", "Standard", "0"] and "1:20" in listed[0]  # 80.5 seconds
    assert ["IMDb", "all models", "0, 1, 2"] in rows and ["SST", "Skim 5/.02", "0, 2"] in rows


def test_nothing_is_fetched(write: Callable[[], str]):
    html = write()
    for tag, attributes in Elements(html).tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "srcset", "poster", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp|import\(", re.sub(r'src="data:[^"]*"', "", html))


def test_tables_pictures_and_controls_are_described(write: Callable[[], str]):
    html = write()
    tags = Elements(html).tags
    scopes = {"row", "col", "colgroup"}
    assert all(attributes.get("scope") in scopes for tag, attributes in tags if tag == "th")
    assert html.count("<table") == html.count("<caption") > 2
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == len(FIGURES)
    assert all(attributes["alt"] for attributes in pictures)
    places = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(places) == len(set(places))
    links = [str(attributes["href"]) for tag, attributes in tags if tag == "a"]
    assert {link.removeprefix("#") for link in links} <= set(places)


@pytest.mark.parametrize("title", ["d &gt; 0 &amp; so on", "d' &gt; 0"])
def test_a_picture_is_the_same_in_an_address_that_html_need_not_escape(title: str):
    shape = f'<path d="M 0 1" class="{title}"/>'
    svg = f'<?xml version="1.0"?><g xmlns="http://www.w3.org/2000/svg"><!-- "a" -->{shape}<text>{title}</text></g>'
    source = Picture.inline("", "", "", svg.encode()).source
    assert not set(source) & set('<>"&')
    kind, _, text = source.partition(",")
    assert kind == "data:image/svg+xml"
    shown, meant = (ElementTree.tostring(ElementTree.fromstring(part)) for part in (unquote(text), svg))
    assert shown == meant


def test_a_picture_keeps_its_labels_and_cuts_its_coordinates():
    style = "font-family: 'DejaVu Sans', sans-serif"
    svg = f'<text x="57.922349" y="0.123456" style="{style}">γ = 12.3456</text>'
    shown = ElementTree.fromstring(unquote(Picture.inline("", "", "", svg.encode()).source.partition(",")[2]))
    assert shown.text == "γ = 12.3456"
    assert shown.attrib == {"x": "57.92", "y": "0.123456", "style": "font-family: DejaVu Sans, sans-serif"}


def test_text_is_escaped(
    write: Callable[[], str],
    config: Config,
    make_record: Callable[..., Record],
    change: Callable[..., Record],
    store: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
):
    evil = "<script>alert('x')</script>"
    record = change(make_record(config, "imdb", "skim-5-0.01", 0), "training.environment.cpu", evil)
    analysis = build_analysis(record, ["layer 1"], question="<b>Who</b>?")
    write_json(store(record).with_suffix(".analysis.json"), analysis.model_dump(mode="json"))
    titles = {name: f"{name} <script>" for name in config.models}
    for module in ("skimrnn.reporting.html.page", "skimrnn.reporting.html.texts", "skimrnn.reporting.table"):
        monkeypatch.setattr(f"{module}.system_titles", lambda config: titles)
    html = write()
    assert html.count("<script") == html.count("</script") == 2 and "<b>" not in html
    elements = Elements(html)
    assert evil in elements.text and "lstm <script>" in elements.text and "<b>Who</b>?" in elements.text
    assert " ".join(HOSTILE) in " ".join(elements.text.split())
    assert json.loads(elements.data)["texts"][1]["points"][-1]["answer"] == HOSTILE[0]


def test_an_answer_may_start_a_text_and_end_it(
    write: Callable[[], str],
    config: Config,
    make_record: Callable[..., Record],
    store: Callable[..., Path],
):
    record = make_record(config, "imdb", "skim-5-0.01", 0)
    analysis = build_analysis(record, ["layer 1"], question="Who?").model_dump(mode="json")
    first, second = analysis["skim"]["samples"]
    first["span"] = [0, 1]
    second["span"] = [len(second["tokens"]) - 1] * 2
    write_json(store(record).with_suffix(".analysis.json"), analysis)
    marked = re.findall(r"<mark>(.*?)</mark>", write(), re.DOTALL)
    words = [Elements(part).text.split() for part in marked]
    assert words == [first["tokens"][:2], second["tokens"][-1:]]


def test_a_title_starts_with_a_capital_and_keeps_its_own(
    write: Callable[[], str],
    config: Config,
    make_record: Callable[..., Record],
    store: Callable[..., Path],
):
    record = make_record(config, "imdb", "skim-5-0.01", 0)
    analysis = build_analysis(record, ["layer 1"]).model_dump(mode="json")
    for sample, title in zip(analysis["skim"]["samples"], ("positive", "Denver Broncos"), strict=True):
        sample["title"] = title
    write_json(store(record).with_suffix(".analysis.json"), analysis)
    assert re.findall("<h4>(.+), row", write()) == ["Positive", "Denver Broncos"]


def test_the_summary_says_what_is_not_finished(tmp_path: Path):
    config = read_config(ROOT / "config" / "paper.yaml").for_task("question_answering")
    for seed, stopped in enumerate(("unfinished", "patience")):
        store_record(tmp_path, reading_record(config, "lstm_att", seed, 0.5 + 0.2 * seed, stopped))
    (outcome,) = summarise([read_reading_results(config, tmp_path)]).outcomes
    assert outcome.runs == f"2 of {3 * len(config.models)} (1 not finished)"
    assert (outcome.standard.ours, outcome.skimming.ours) == ("60.0", "not run")


def test_the_summary_tells_readers_that_skim_from_those_that_do_not(tmp_path: Path):
    config = read_config(ROOT / "config" / "paper.yaml")
    for model, f1 in (("bidaf", 0.7), ("sk_bidaf-50-0.01", 0.6)):
        store_record(tmp_path, reading_record(config, model, 0, f1))
    (outcome,) = summarise([read_reading_results(config, tmp_path)]).outcomes
    assert (outcome.standard.ours, outcome.skimming.ours) == ("70.0", "60.0")


def test_the_summary_sets_beside_the_paper_the_rows_that_both_have(
    make_config: Callable[..., Config], make_record, store, tmp_path: Path
):
    """Where there are such rows; of a speed-up, both in NumPy and ours on demand."""
    skipping = {"skim-0-0.01": {"architecture": "skim_lstm", "hidden_size": 100, "small_size": 0, "gamma": 0.01}}
    config = make_config(models=MODELS | skipping)
    rates = {"skim-5-0.01": 0.5, "skim-10-0.01": 0.6, "skim-0-0.01": 0.9}
    for model, rate in rates.items():
        store(changed(make_record(config, "sst", model, 0), "test.skim_rate", rate))
    timed = ModelSpeed(
        skim_rate=0.5,
        lstm={way: timing.summarise([3.0]) for way in ("numpy", "demand")},
        skim={"numpy": timing.summarise([3.0]), "demand": timing.summarise([2.0])},
    )
    results = replace(read_results(config, tmp_path), speeds={"sst": build_speed("sst", {"skim-5-0.01": {0: timed}})})
    sst, imdb = summarise([results]).outcomes
    assert (sst.skimmed.paper, sst.skimmed.ours) == ("58.2 to 61.1", "50.0 to 60.0")
    assert (sst.speedup.paper, sst.speedup.ours, sst.fast_speedup) == ("1.4", "1.0", "1.5")
    assert (imdb.skimmed.paper, imdb.skimmed.ours) == ("63.2 to 90.7", "not run")


def test_the_summary_has_no_standard_model_of_a_size_that_does_not_skim(
    make_config: Callable[..., Config], make_record, store, tmp_path: Path
):
    larger = {"lstm-200": {"architecture": "lstm", "hidden_size": 200}}
    config = make_config(models=MODELS | larger)
    for model, accuracy in (("lstm", 0.8), ("lstm-200", 0.9)):
        store(changed(make_record(config, "sst", model, 0), "test.accuracy", accuracy))
    store(make_record(config, "sst", "skim-5-0.01", 0))
    assert summarise([read_results(config, tmp_path)]).outcomes[0].standard.ours == "80.0"


@pytest.mark.parametrize("model", ["lstm", "skim-5-0.01"])
def test_a_summary_of_one_model(model: str, make_config: Callable[..., Config], make_record, store, tmp_path: Path):
    config = make_config(models={model: MODELS[model]})
    store(make_record(config, "sst", model, 0))
    sst, imdb = summarise([read_results(config, tmp_path)]).outcomes
    standard, skimming = (sst.standard.ours != "not run", sst.skimming.ours != "not run")
    assert (standard, skimming) == (model == "lstm", model != "lstm")
    assert (imdb.standard.ours, imdb.skimming.ours) == ("not run", "not run")


def test_synthetic_corpora_are_announced(make_config: Callable[..., Config], figures: Path, tmp_path: Path):
    evidence = read_evidence(make_config(scale="smoke", data={"source": "embedded"}), tmp_path)
    page.write_page(evidence, tmp_path, figures, tmp_path / "index.html")
    text = Elements((tmp_path / "index.html").read_text()).text
    assert "synthetic stand-ins" in text and "orientation only" in text and "No records." in text


def test_settings_of_training_are_given_for_all_datasets(
    make_config: Callable[..., Config], figures: Path, tmp_path: Path
):
    other = {"learning_rate": 0.0002, "patience": 1_000, "max_steps": 1_200_000}
    datasets = {"sst": {"batch_size": 32}, "imdb": {"batch_size": 128, "training": other}}
    usual = (config := make_config(datasets=datasets)).run("sst", "lstm", 0).training
    page.write_page(read_evidence(config, tmp_path), tmp_path, figures, tmp_path / "index.html")
    text = Elements((tmp_path / "index.html").read_text()).text
    assert f"a learning rate of {usual.learning_rate} or 0.0002, stops when" in text
    assert f"for 1,000 or {usual.patience:,} steps (at most {usual.max_steps:,} or 1,200,000 in all)" in text


def test_a_missing_figure_is_a_user_error(config: Config, grid: Path, figures: Path, tmp_path: Path):
    (figures / "training.svg").unlink()
    with pytest.raises(UserError, match=r"training\.svg"):
        page.write_page(read_evidence(config, grid), grid, figures, tmp_path / "index.html")
    assert not (tmp_path / "index.html").exists()


def test_the_verbs_make_the_whole_report(config: Config, grid: Path, tmp_path: Path):
    write_json(tmp_path / "config.yaml", config.model_dump(mode="json"))
    common = ["--config", str(tmp_path / "config.yaml"), "--results", str(grid)]
    report = tmp_path / "report"
    run = CliRunner().invoke
    printed = run(app, ["table", *common, "--output", str(report)])
    assert printed.exit_code == 0 and "Skim 10/.02" in printed.output
    assert run(app, ["figures", *common, "--output", str(report)]).exit_code == 0
    options = ["--figures", str(report), "--output", str(report / "index.html")]
    assert run(app, ["page", *common, *options]).exit_code == 0
    assert len(list(report.iterdir())) == 3 + 3 * len(FIGURES) + 1


@pytest.mark.parametrize("verb", ["table", "figures"])
def test_a_bad_record_ends_a_verb_with_one_line(verb: str, config: Config, grid: Path, tmp_path: Path):
    write_json(tmp_path / "config.yaml", config.model_dump(mode="json"))
    (grid / "paper/sst/lstm/0.json").write_text("{}")
    options = ["--config", str(tmp_path / "config.yaml"), "--results", str(grid), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [verb, *options])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and "paper/sst/lstm/0.json" in result.stderr
    assert not (tmp_path / "out").exists()
