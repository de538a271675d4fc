import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skimrnn.cli import app
from skimrnn.config import Config
from skimrnn.errors import UserError
from skimrnn.files import write_json
from skimrnn.reporting import page
from skimrnn.reporting.figures import FIGURES
from skimrnn.reporting.records import read_results
from skimrnn.reporting.table import table_rows
from skimrnn.training.record import Record


class Elements(HTMLParser):
    """The start tags of a page with their attributes, its visible text, and whether each element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


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
        page.write_page([read_results(config, grid)], figures, path)
        return path.read_text()

    return written


def test_every_number_of_the_tables_and_every_run_is_on_the_page(write: Callable[[], str], config: Config, grid: Path):
    html = write()
    elements = Elements(html)
    assert elements.open == []
    results = read_results(config, grid)
    for dataset in config.datasets:
        for row in table_rows(results, dataset):
            assert row.title in elements.text
            assert all(str(entry) in elements.text for entry in row.entries)
    assert elements.text.count("633f3029") == 1 + len(results.of_dataset("sst"))
    assert "1:20" in elements.text  # 80.5 seconds
    assert "synthetic" not in html


def test_nothing_is_fetched(write: Callable[[], str]):
    html = write()
    for tag, attributes in Elements(html).tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "poster", "data", "action", "style"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r'src="data:[^"]*"', "", html))


def test_tables_and_pictures_are_described(write: Callable[[], str]):
    tags = Elements(write()).tags
    assert all(attributes.get("scope") in {"row", "col"} for tag, attributes in tags if tag == "th")
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) == len(FIGURES)
    assert all(attributes["alt"] for attributes in pictures)


def test_text_is_escaped(
    write: Callable[[], str],
    config: Config,
    make_record: Callable[..., Record],
    change: Callable[..., Record],
    store: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
):
    evil = "<script>alert('x')</script>"
    store(change(make_record(config, "imdb", "lstm", 0), "training.environment.cpu", evil))
    titles = {name: f"{name} <script>" for name in config.models}
    monkeypatch.setattr(page, "system_titles", lambda config: titles)
    monkeypatch.setattr("skimrnn.reporting.table.system_titles", lambda config: titles)
    html = write()
    assert "<script" not in html
    elements = Elements(html)
    assert evil in elements.text and "lstm <script>" in elements.text


def test_synthetic_corpora_are_announced(make_config: Callable[..., Config], figures: Path, tmp_path: Path):
    results = read_results(make_config(scale="smoke", data={"source": "embedded"}), tmp_path)
    page.write_page([results], figures, tmp_path / "index.html")
    text = Elements((tmp_path / "index.html").read_text()).text
    assert "synthetic stand-ins" in text and "orientation only" in text and "No records." in text


def test_a_missing_figure_is_a_user_error(config: Config, grid: Path, figures: Path, tmp_path: Path):
    (figures / "training.svg").unlink()
    with pytest.raises(UserError, match=r"training\.svg"):
        page.write_page([read_results(config, grid)], figures, tmp_path / "index.html")
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
    assert len(list(report.iterdir())) == 3 + 2 * len(FIGURES) + 1


@pytest.mark.parametrize("verb", ["table", "figures"])
def test_a_bad_record_ends_a_verb_with_one_line(verb: str, config: Config, grid: Path, tmp_path: Path):
    write_json(tmp_path / "config.yaml", config.model_dump(mode="json"))
    (grid / "paper/sst/lstm/0.json").write_text("{}")
    options = ["--config", str(tmp_path / "config.yaml"), "--results", str(grid), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [verb, *options])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and "paper/sst/lstm/0.json" in result.stderr
    assert not (tmp_path / "out").exists()
