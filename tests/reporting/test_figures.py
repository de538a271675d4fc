import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from skimrnn.analysis.artefact import THRESHOLDS, Analysis, Packed
from skimrnn.config import Config, read_config
from skimrnn.errors import UserError
from skimrnn.files import read_json, read_model, write_json, write_text
from skimrnn.reporting.analysis_figures import _look
from skimrnn.reporting.figure_style import COLOURS, DASHES, EXTENSIONS, line_look
from skimrnn.reporting.figures import FIGURES, READING_FIGURES, write_figures
from skimrnn.reporting.record_figures import RECORD_FIGURES
from skimrnn.reporting.records import Results, read_reading_results, read_results
from skimrnn.reporting.systems import skims
from tests.conftest import ROOT
from tests.reporting.analyses import store_analysed
from tests.reporting.conftest import sequences_of

NAMES = sorted(f"{kind.name}.{suffix}" for kind in FIGURES for suffix in EXTENSIONS)


def drawn(results: Results, name: str):
    (kind,) = (kind for kind in (*FIGURES, *READING_FIGURES) if kind.name == name)
    return kind.figure(results)


@pytest.fixture
def results(config: Config, grid: Path) -> Results:
    return read_results(config, grid)


def test_equal_records_give_equal_bytes(results: Results, tmp_path: Path):
    for folder in ("one", "two"):
        write_figures([results], tmp_path / folder)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == NAMES
    for name in NAMES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_rules_declare_what_the_command_writes():
    rules = (ROOT / "workflow" / "rules" / "report.smk").read_text()
    declared = ast.literal_eval(re.search(r"^FIGURES = (\{.+?^\})", rules, re.MULTILINE | re.DOTALL)[1])
    written = {"classification": FIGURES, "question_answering": READING_FIGURES}
    assert declared == {task: [kind.name for kind in kinds] for task, kinds in written.items()}


@pytest.mark.parametrize("kind", RECORD_FIGURES, ids=lambda kind: kind.name)
def test_only_datasets_that_were_run_have_a_panel(kind, results: Results):
    panels = [panel for panel in kind.draw(results).axes if panel.get_visible()]
    assert {panel.get_title(loc="left") for panel in panels} == {"SST"}
    assert all(panel.has_data() for panel in panels)


def test_without_any_run_each_panel_says_so(config: Config, tmp_path: Path):
    panels = drawn(read_results(config, tmp_path), "skim_rate").axes
    assert [panel.get_title(loc="left") for panel in panels] == ["SST", "IMDb"]
    assert [text.get_text() for panel in panels for text in panel.texts] == ["not run", "not run"]


def test_a_bar_is_the_mean_skim_rate_and_a_missing_one_is_named(results: Results):
    panel = drawn(results, "skim_rate").axes[0]
    run = ("skim-5-0.01", "skim-10-0.01", "skim-5-0.02")
    means = [results.measured("sst", model, lambda record: 100 * record.test.skim_rate).mean for model in run]
    assert [bar.get_height() for bar in panel.patches] == pytest.approx(means)
    assert [text.get_text() for text in panel.texts] == ["not run"]


def test_the_papers_skim_rate_stands_beside_real_data_only(
    results: Results, make_config: Callable[..., Config], make_record, store, tmp_path: Path
):
    def markers(results: Results) -> list[float]:
        lines = drawn(results, "skim_rate").axes[0].lines
        return [line.get_ydata()[0] for line in lines if line.get_marker() == "D"]

    assert markers(results) == [58.2, 61.1, 62.3, 68.0]
    synthetic = make_config(scale="smoke", data={"source": "embedded"})
    store(make_record(synthetic, "sst", "skim-5-0.01", 0))
    assert markers(read_results(synthetic, tmp_path)) == []


def test_the_strong_line_is_the_mean_over_the_steps_that_all_seeds_reached(results: Results):
    accuracy = drawn(results, "training").axes[0]
    runs = results.of_model("sst", "lstm")
    curves = [{point.step: 100 * point.validation.accuracy for point in run.record.training.history} for run in runs]
    shortest = min(curves, key=len)
    mean = accuracy.lines[len(runs)]
    assert list(mean.get_xdata()) == sorted(shortest)
    assert mean.get_ydata()[-1] == pytest.approx(sum(curve[max(shortest)] for curve in curves) / len(curves))


def test_a_trade_off_runs_between_the_thresholds_that_were_tried(config: Config, tmp_path: Path):
    """Where all is read or all is skimmed another Flop-r begins, and what lies between was not measured."""
    for model in ("lstm", "skim-5-0.01", "skim-5-0.02"):
        store_analysed(tmp_path, config, "sst", model, 0, 0.8)
    panel = drawn(read_results(config, tmp_path), "accuracy_threshold").axes[0]
    curves = [line for line in panel.lines if len(line.get_xdata()) > 2]
    assert len(curves) == 2 and all(len(line.get_xdata()) == len(THRESHOLDS) - 2 for line in curves)
    assert all(min(line.get_xdata()) > 1 and max(line.get_xdata()) < 10 for line in curves)


def test_no_two_trade_offs_share_a_colour():
    config = read_config(ROOT / "config" / "paper.yaml").for_task("classification")
    shown = [model for model in config.models.values() if skims(model) and model.hidden_size == 100]
    assert len({_look(index)["color"] for index in range(len(shown))}) == len(shown) == 8


def test_models_of_two_sizes_have_a_line_each(make_config: Callable[..., Config], tmp_path: Path):
    skim = {"architecture": "skim_lstm", "small_size": 5, "gamma": 0.01}
    settings = [(size, gamma) for size in (100, 200) for gamma in (0.01, 0.02)]
    models = {f"{gamma}-{size}": skim | {"gamma": gamma, "hidden_size": size} for size, gamma in settings}
    standards = {f"lstm-{size}": {"architecture": "lstm", "hidden_size": size} for size in (100, 200)}
    config = make_config(models=standards | models, seeds=[0])
    for model in config.models:
        store_analysed(tmp_path, config, "sst", model, 0, 0.7 if model == "lstm-200" else 0.8)
    figure = drawn(read_results(config, tmp_path), "effects")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["d' = 5, d = 100", "d' = 5, d = 200", "standard LSTM, d = 100", "standard LSTM, d = 200"]
    lines = [line for line in figure.axes[1].lines if len(line.get_xdata()) == 2]
    assert len(lines) == 2
    # Beside the accuracies each standard LSTM has a level of its own, which its handle tells from the other.
    handles = [handle.get_linestyle() for handle in figure.legends[0].get_lines()[2:]]
    assert len(set(handles)) == 2
    levels = [line for line in figure.axes[0].lines if line.get_linestyle() in handles and len(line.get_xdata()) == 2]
    assert [(line.get_ydata()[0], line.get_linestyle()) for line in levels] == [
        (pytest.approx(80), handles[0]),
        (pytest.approx(70), handles[1]),
    ]


@pytest.mark.parametrize("kind", [kind for kind in FIGURES if kind.main_size], ids=lambda kind: kind.name)
def test_other_figures_show_the_first_of_two_sizes_and_say_so(kind, make_config: Callable[..., Config], tmp_path: Path):
    sizes = {"skim": 100, "skim-200": 200}
    skim = {"architecture": "skim_lstm", "small_size": 5, "gamma": 0.01}
    models = {name: skim | {"hidden_size": size} for name, size in sizes.items()}
    config = make_config(models={"lstm": {"architecture": "lstm", "hidden_size": 100}} | models, seeds=[0])
    for model in config.models:
        store_analysed(tmp_path, config, "sst", model, 0, 0.8)
    results = read_results(config, tmp_path)
    figure = kind.figure(results)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert not any("200" in text for text in texts) and any("5/" in text for text in texts)
    assert kind.caption_of(results) == f"{kind.caption} Models with d = 100."
    alone = results.config.model_copy(update={"models": {n: m for n, m in config.models.items() if n != "skim-200"}})
    assert kind.caption_of(replace(results, config=alone)) == kind.caption


def test_each_layers_skim_rate_stands_in_the_panel_of_its_sizes(tmp_path: Path):
    paper = read_config(ROOT / "config" / "paper.yaml").for_task("question_answering")
    skim = paper.models["sk_lstm_att-20-0.1"].model_copy(update={"init_from": None})
    models = {"one": skim, "two": skim.model_copy(update={"hidden_size": 200})}
    config = Config.model_validate(paper.model_dump() | {"models": models})
    for model in models:
        store_analysed(tmp_path, config, "squad", model, 0, 0.7)
    panels = drawn(read_reading_results(config, tmp_path), "layer_skim_rate").axes
    assert [panel.get_title(loc="left") for panel in panels] == [f"SQuAD v1.1, d' = 20, d = {d}" for d in (200, 100)]
    assert all(panel.has_data() for panel in panels)


def test_readers_of_two_families_are_not_sorted_by_one_flop_r(tmp_path: Path):
    """Each counts from the standard reader of its own."""
    config = read_config(ROOT / "config" / "paper.yaml")
    for model in ("lstm_att", "lstm_att-2x50", "bidaf-30", "bidaf"):
        store_analysed(tmp_path, config, "squad", model, 0, 0.6)
        path = tmp_path / "paper" / "squad" / model / "0.json"
        flops = {"lstm_att": 1.0, "lstm_att-2x50": 2.3, "bidaf-30": 5.1, "bidaf": 1.0}[model]
        write_json(path, read_json(path) | {"flop_reduction": {"published_convention": flops, "exact_count": flops}})
    panel = drawn(read_reading_results(config, tmp_path), "f1_sorted").axes[0]
    assert [text.get_text() for text in panel.texts if text.get_text().endswith("x")] == [
        "1.0x",
        "2.3x",
        "1.0x",
        "5.1x",
    ]


def test_a_handful_of_decisions_is_no_point_of_a_calibration(config: Config, tmp_path: Path):
    store_analysed(tmp_path, config, "sst", "skim-5-0.01", 0, 0.8)
    path = tmp_path / "paper" / "sst" / "skim-5-0.01" / "0.analysis.json"
    analysis = read_json(path)
    bins = analysis["skim"]["confidence"][0]["calibration"]
    for place, decisions in enumerate((19, 20)):
        bins[place]["decisions"] = decisions
    write_json(path, analysis)
    (panel, *_), legends = (figure := drawn(read_results(config, tmp_path), "calibration")).axes, figure.legends
    assert list(panel.lines[0].get_xdata()) == pytest.approx([15, 25, 35, 45, 55, 65, 75, 85])
    assert legends == []  # There is one LSTM alone.


def test_nothing_that_is_drawn_lies_beyond_the_axes(config: Config, tmp_path: Path):
    for model in ("lstm", "skim-5-0.01", "skim-5-0.02"):
        store_analysed(tmp_path, config, "sst", model, 0, 0.8)
    results = read_results(config, tmp_path)
    for name in ("skimmed_tokens", "effects"):
        for panel in drawn(results, name).axes:
            low, high = panel.get_ylim()
            assert low <= panel.dataLim.y0 and panel.dataLim.y1 < high, (name, panel.get_xlabel())


def test_each_lstm_of_a_reader_has_a_look_of_its_own(tmp_path: Path):
    config = read_config(ROOT / "config" / "paper.yaml").for_task("question_answering")
    models = ("sk_lstm_att-20-0.1", "sk_bidaf-50-0.01")
    for model in models:
        store_analysed(tmp_path, config, "squad", model, 0, 0.7)
    results = read_reading_results(config, tmp_path)
    for name in ("confidence", "reading_calibration"):
        figure = drawn(results, name)
        (legend,) = figure.legends
        labels = [text.get_text() for text in legend.get_texts()]
        lines = legend.get_lines()
        looks = {label: (line.get_color(), line.get_linestyle()) for label, line in zip(labels, lines, strict=True)}
        sequences = [sequence for model in models for sequence in sequences_of(model)]
        assert set(sequences) <= set(looks) and len({looks[sequence] for sequence in sequences}) == len(sequences)
        assert [panel.get_title(loc="left") for panel in figure.axes if panel.get_visible()] == [
            "Sk-LSTM+Att 20/.1, d = 100",
            "Sk-BiDAF 50/.01, d = 100",
        ]
        for panel in figure.axes:
            assert panel.dataLim.y1 <= panel.get_ylim()[1], name


def test_no_two_models_share_the_look_of_their_lines():
    count = len(COLOURS) * len(DASHES)
    assert len({str(line_look(index)) for index in range(count)}) == count


def test_the_standard_model_is_shown_on_the_examples_of_the_sweep(config: Config, tmp_path: Path):
    """A sweep over a sample stands beside what the standard model scores on that sample."""
    for model in ("lstm", "skim-5-0.01"):
        store_analysed(tmp_path, config, "sst", model, 0, 0.8)
    folder = tmp_path / config.scale / "sst"
    standard = read_model(folder / "lstm" / "0.analysis.json", Analysis).outcomes["accuracy"].unpack()
    sample = np.arange(len(standard)) < 50
    path = folder / "skim-5-0.01" / "0.analysis.json"
    analysis = read_json(path)
    analysis["skim"]["sweep"]["included"] = Packed.pack(sample, "bit").model_dump()
    write_json(path, analysis)
    assert standard[sample].mean() != 0.8
    (panel,) = (panel for panel in drawn(read_results(config, tmp_path), "accuracy_threshold").axes if panel.has_data())
    (level,) = (line for line in panel.lines if line.get_linestyle() == ":")
    assert level.get_ydata() == pytest.approx([100 * standard[sample].mean()] * 2)
    assert panel.get_title(loc="right") == f"50 of {len(standard)} examples, 1 seed"


def test_what_one_model_alone_has_moves_no_line_of_a_sweep(config: Config, tmp_path: Path):
    """Beside models with fewer seeds, a model's line is drawn over theirs."""
    for model, seeds in (("lstm", (0, 1)), ("skim-5-0.01", (0, 1))):
        for seed in seeds:
            store_analysed(tmp_path, config, "sst", model, seed, 0.8)

    def lines() -> list[list[float]]:
        figure = drawn(read_results(config, tmp_path), "accuracy_threshold")
        (panel,) = (panel for panel in figure.axes if panel.has_data())
        assert panel.get_title(loc="right") == "2 seeds"
        return [list(line.get_ydata()) for line in panel.lines]

    before = lines()
    store_analysed(tmp_path, config, "sst", "skim-5-0.01", 2, 0.3)
    assert lines() == before


def test_effects_lie_around_their_gamma(tmp_path: Path):
    """Where fewer sizes were run than the grid has, too."""
    config = read_config(ROOT / "config" / "paper.yaml")
    for model in ("skim-5-0.01", "skim-10-0.01"):
        store_analysed(tmp_path, config, "sst", model, 0, 0.8)
    panel = next(panel for panel in drawn(read_results(config, tmp_path), "effects").axes if panel.has_data())
    places = [float(container.lines[0].get_xdata()[0]) for container in panel.containers]
    assert len(places) == 2 and sum(places) == pytest.approx(0)


def test_a_figure_that_nothing_was_run_for_is_a_strip_that_says_so(config: Config, tmp_path: Path):
    figure = drawn(read_results(config, tmp_path), "accuracy_threshold")
    assert [text.get_text() for text in figure.texts] == ["not run"] and not figure.axes
    assert figure.get_size_inches()[1] < 1


def test_a_folder_that_cannot_be_written_is_a_user_error(results: Results, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        write_figures([results], tmp_path / "file" / "figures")


def test_an_analysis_that_cannot_be_read_leaves_no_figure(config: Config, tmp_path: Path):
    store_analysed(tmp_path, config, "sst", "skim-5-0.01", 0, 0.8)
    write_text(tmp_path / config.scale / "sst" / "skim-5-0.01" / "0.analysis.json", "{")
    with pytest.raises(UserError, match="not valid JSON"):
        write_figures([read_results(config, tmp_path)], tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
