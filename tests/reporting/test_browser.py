"""The page in a real browser: opened from disk, read, sorted, filtered, asked where its numbers come from."""

import shutil
from pathlib import Path

import pytest

from skimrnn.config import Config, read_config
from skimrnn.data.statistics import DatasetStatistics
from skimrnn.files import write_json
from skimrnn.reporting.evidence import read_evidence
from skimrnn.reporting.figures import figures_of
from skimrnn.reporting.html.page import write_page
from skimrnn.training.record import read_record
from tests.conftest import ROOT
from tests.reporting.conftest import HOSTILE, build_analysis, build_config, build_record, reading_record, store_record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("chromium is not installed (Debian: apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
WORDS = [f"word{place}" for place in range(10)]
LSTMS = [f"layer {number} {direction}" for number in (1, 2) for direction in ("forward", "backward")]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about SST, run and analysed, IMDb, not run, and SQuAD, with one reader."""
    folder = tmp_path_factory.mktemp("page")
    paper = read_config(ROOT / "config" / "paper.yaml")
    config = Config.model_validate(
        build_config().model_dump()
        | {
            "datasets": {name: paper.datasets[name] for name in ("sst", "imdb", "squad")},
            "models": {name: model for name, model in paper.models.items() if model.hidden_size == 100},
        }
    )
    for model in ("lstm", "skim-5-0.01", "skim-10-0.01"):
        first, *_ = [
            store_record(folder / "results", build_record(config, "sst", model, seed)) for seed in config.seeds
        ]
        if model != "lstm":
            analysis = build_analysis(read_record(first), ["layer 1"])
            write_json(first.with_suffix(".analysis.json"), analysis.model_dump(mode="json"))
    reader = reading_record(config, "sk_lstm_att-20-0.1", 0, 0.75)
    stored = store_record(folder / "results", reader)
    analysis = build_analysis(reader, LSTMS, question="Who <b>asks</b>?")
    write_json(stored.with_suffix(".analysis.json"), analysis.model_dump(mode="json"))
    write_json(folder / "results" / "paper" / "datasets.json", [counted(name) for name in ("sst", "imdb")])
    evidence = read_evidence(config, folder / "results")
    for kind in [kind for results in evidence.results.values() for kind in figures_of(results)]:
        (folder / f"{kind.name}.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>')
    write_page(evidence, folder / "results", folder, folder / "index.html")
    return folder / "index.html"


def counted(dataset: str) -> dict[str, object]:
    """What could be counted of a dataset."""
    splits = dict.fromkeys(("train", "validation", "test"), 9)
    return DatasetStatistics(
        dataset=dataset,
        source="mirror",
        revision=None,
        complete=True,
        rows=splits,
        fetched_rows=splits,
        digests={},
        mean_length={"all tokens": 9.0},
        vocabulary={"lower-cased": 9},
        leaks={},
        empty=0,
    ).model_dump(mode="json")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    """One browser, with one tab, for all tests."""
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("chromium"), executable_path=CHROMIUM, args=FLAGS
        )
        context.set_default_timeout(30_000)
        yield context.pages[0]
        context.close()


@pytest.fixture
def page(browser, path: Path):
    """The page, freshly opened; whatever the console says or the network is asked for fails the test."""
    said, asked = [], []
    listeners = {
        "console": lambda message: said.append(message.text),
        "pageerror": lambda error: said.append(str(error)),
        "request": lambda request: asked.append(request.url),
    }
    for event, listener in listeners.items():
        browser.on(event, listener)
    browser.set_viewport_size({"width": 1280, "height": 800})
    browser.goto(path.as_uri())
    yield browser
    for event, listener in listeners.items():
        browser.remove_listener(event, listener)
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]


def column(page, number: int, table: str = "#classification-sst + .wide table") -> list[str]:
    """The texts of one column of a table, from above."""
    return [text.strip() for text in page.locator(f"{table} tbody tr > :nth-child({number + 1})").all_inner_texts()]


def test_it_opens_from_disk_and_is_small(page, path: Path):
    assert page.title() == "Skim-RNN, paper scale"
    assert page.get_by_role("heading", level=1).inner_text() == "Skim-RNN, paper scale"
    assert path.stat().st_size < 5_000_000


def test_a_heading_sorts_by_its_column_and_gives_the_order_back(page):
    first = column(page, 2)
    heading = page.locator("#classification-sst + .wide").get_by_role("button", name="Acc (%), ours")
    cell = heading.locator("xpath=..")
    numbers = [text for text in first if text[0].isdigit()]
    assert len(numbers) == 3 and cell.get_attribute("aria-sort") == "none"
    heading.click()
    assert cell.get_attribute("aria-sort") == "descending"
    assert column(page, 2)[:3] == sorted(numbers, reverse=True)
    heading.press("Enter")
    assert cell.get_attribute("aria-sort") == "ascending"
    assert column(page, 2)[:3] == sorted(numbers)  # What has no number stays below.
    heading.press(" ")
    assert cell.get_attribute("aria-sort") == "none" and column(page, 2) == first


def test_the_page_shows_one_dataset_alone(page):
    page.get_by_label("Dataset").first.select_option("SST")
    shown = {"classification-sst": True, "classification-imdb": False, "texts-squad": False, "confidence-squad": False}
    shown |= {"classification": True, "question_answering": False, "benchmark": True}  # No heading over nothing.
    for name, visible in shown.items():
        assert page.locator(f"#{name}").is_visible() is visible
    assert page.get_by_role("status").inner_text() == "Showing SST."
    page.get_by_label("Dataset").first.select_option("all")
    assert page.locator("#classification-imdb").is_visible() and page.locator("#question_answering").is_visible()


def test_the_keyboard_reaches_the_rows_of_the_dataset_that_is_shown(page):
    page.get_by_label("Dataset").first.select_option("IMDb")
    table = page.locator("#corpora").locator("xpath=..").locator("table")
    stops = table.locator("[data-origin][tabindex='0']")
    assert stops.count() == 1 and stops.is_visible()
    stops.focus()
    page.keyboard.press("ArrowDown")  # Below lies nothing that is shown.
    assert stops.count() == 1 and stops.is_visible()
    page.get_by_label("Dataset").first.select_option("all")
    stops.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator(":focus").locator("xpath=ancestor::tr").get_attribute("data-dataset") == "imdb"


def test_the_threshold_recolours_the_text(page):
    library = page.locator("#texts-sst").locator("xpath=..")
    article, slider = library.locator("article").first, library.get_by_label("Threshold")
    read = article.locator(".word.read")
    assert library.locator(".value").inner_text() == "0.5" and read.all_inner_texts() == [
        f"word{n}" for n in range(5, 10)
    ]
    blue = "getComputedStyle(document.querySelector('.word.read')).color"
    plain = "getComputedStyle(document.querySelector('.word:not(.read)')).color"
    assert page.evaluate(blue) != page.evaluate(plain)
    slider.focus()
    slider.press("Home")
    assert library.locator(".value").inner_text() == "0" and read.count() == 10
    assert article.locator(".count").inner_text() == "10 of 10"
    slider.press("End")
    assert read.count() == 0 and article.locator(".said").inner_text() == HOSTILE[0]
    library.get_by_label("Model").select_option("Skim 10/.01, seed 0")
    assert library.locator("article:visible").count() == 2


def test_each_lstm_of_a_reader_has_a_strip_and_can_colour_the_text(page):
    article = page.locator("#texts-squad").locator("xpath=..").locator("article").first
    shares = article.locator(".strips .share").all_inner_texts()
    assert shares == ["50 %", "40 %", "30 %", "20 %"]
    assert article.locator(".strips path").nth(3).get_attribute("d") == "M8 0h2v1h-2z"
    article.get_by_label("Layer 2 backward").check()
    assert article.locator(".word.read").all_inner_texts() == ["word8", "word9"]
    assert article.locator("mark").inner_text() == "word2 word3"


def test_a_word_says_its_probability(page):
    text = page.locator("#texts-sst").locator("xpath=..").locator(".words").first
    word = text.locator(".word").nth(3)
    plain = word.evaluate("word => getComputedStyle(word).backgroundColor")
    text.focus()
    shaded = [text.locator(".word").nth(n).evaluate("word => getComputedStyle(word).backgroundColor") for n in (3, 9)]
    assert len({plain, *shaded}) == 3
    for _ in range(4):
        text.press("ArrowRight")
    assert word.evaluate("word => getComputedStyle(word, '::after').content") == '"0.35"'
    assert page.get_by_role("status").inner_text() == "word3: p(read) 0.35, skimmed"


def test_a_number_says_where_it_comes_from_by_the_keyboard_alone(page):
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the results"
    while page.locator(":focus").inner_text() != "Classification":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # On from the heading.
    while not page.locator(":focus").get_attribute("data-origin"):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    number = page.locator(":focus").inner_text()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("heading").inner_text() == "SST, Skim 5/.01: Acc (%), ours"
    assert dialog.locator(".number").inner_text() == number
    text = dialog.inner_text()
    for seed in range(3):
        assert f"results/paper/sst/skim-5-0.01/{seed}.json" in text
    for fact in ("3f" * 32, "633f30295850142d758920b9a8553b630af3dd3f", "some processor, 2 cores", "reference"):
        assert fact in text
    page.keyboard.press("Escape")
    assert dialog.count() == 0 and page.locator(":focus").inner_text() == number


def test_a_verdict_shows_its_rule_and_its_runs(page):
    row = page.locator(".claims tr").filter(has_text="A larger gamma skims more.")
    assert row.locator(".verdict").inner_text() == "– not tested"  # One gamma is run alone.
    row = page.locator(".claims tr").filter(has_text="It needs up to 3 times fewer float operations")
    assert "by the exact count" in row.locator("li small").inner_text()
    row = page.locator(".claims tr").filter(has_text="keeps or betters the standard LSTM's accuracy")
    assert "parts tested: 1 of 4" in row.inner_text() and "Not run: Rotten Tomatoes, IMDb, AG News" in row.inner_text()
    row.get_by_role("button").press(" ")
    text = page.get_by_role("dialog").inner_text()
    assert "Rule: Accuracy of the Skim-LSTMs" in text
    for run in ("sst/skim-5-0.01/2", "sst/skim-10-0.01/0", "sst/lstm/1"):
        assert run in text and f"results/paper/{run}.json" in text


def test_the_tables_of_confidence_sort_and_say_which_runs_they_come_from(page):
    section = page.locator("#confidence-squad").locator("xpath=..")
    table, *others = section.locator("table").all()
    assert table.is_visible() and others and not any(other.is_visible() for other in others)
    rows = table.locator("tbody tr")
    assert [row.locator("td").first.inner_text() for row in rows.all()] == LSTMS
    heading = table.get_by_role("button", name="Confidence (%)")
    heading.click()
    assert [row.locator("td").first.inner_text() for row in rows.all()] == LSTMS[::-1]
    assert heading.locator("xpath=..").get_attribute("aria-sort") == "descending"
    rows.first.locator("[data-origin]").nth(2).click()
    text = page.get_by_role("dialog").inner_text()
    assert "SQuAD v1.1, Sk-LSTM+Att 20/.1, layer 2 backward: Confidence (%)" in text
    assert "results/paper/squad/sk_lstm_att-20-0.1/0.json" in text
    page.keyboard.press("Escape")
    section.locator("summary", has_text="What reversing one decision does").click()
    assert others[1].is_visible() and "+0.1000 ± 0.1000" in others[1].inner_text()


def test_a_printed_number_says_so(page):
    page.locator("#classification-imdb + .wide").get_by_role("button", name="91.1").first.click()
    assert "one run (skimrnn/published/numbers.csv); not measured by us" in page.get_by_role("dialog").inner_text()


@pytest.mark.parametrize("width", [400, 1280])
def test_it_fits_the_screen(width: int, page):
    page.set_viewport_size({"width": width, "height": 800})
    longer = "option => option.text += ', training not finished'.repeat(5)"
    page.evaluate(f"document.querySelectorAll('option').forEach({longer})")  # As models' names can be.
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_hostile_text_shows_as_text(page):
    article = page.locator("#texts-squad").locator("xpath=..").locator("article").nth(1)
    assert article.locator(".words .word").all_inner_texts() == list(HOSTILE)
    assert article.locator(".question").inner_text() == "Question: Who <b>asks</b>?"
    slider = page.locator("#texts-squad").locator("xpath=..").get_by_label("Threshold")
    slider.press("Home")
    assert article.locator(".only-read").text_content() == " ".join(HOSTILE)
    slider.press("End")
    assert article.locator(".said").inner_text() == HOSTILE[0] and page.title() != "owned"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page(scheme: str, page):
    """WCAG AA: 4.5 to 1 for each colour of text, on the page and on the bands of tables."""
    page.emulate_media(color_scheme=scheme)
    grounds, texts = ["ground", "band", "raised"], ["ink", "soft", "ours", "read", "link", "good", "bad", "open"]
    colours = {
        name: page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
        for name in grounds + texts
    }
    for ground in grounds:
        for text in texts:
            light, dark = sorted((luminance(colours[ground]), luminance(colours[text])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, text)


def luminance(colour: str) -> float:
    """The relative luminance of `#rrggbb` (WCAG 2)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
