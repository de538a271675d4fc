"""The content of the question answering table: the paper's rows in their order, each beside ours."""

from skimrnn.benchmarks.speedup import WHOLE
from skimrnn.config import BiDAFConfig, ModelConfig, ReaderConfig, SkimBiDAFConfig, SkimReaderConfig
from skimrnn.data.questions import SCORED_SPLIT
from skimrnn.data.registry import get_dataset
from skimrnn.published import PublishedValue, published_value, published_values
from skimrnn.reporting.records import Results
from skimrnn.reporting.systems import CITED, sizes_text
from skimrnn.reporting.table import NOTHING, WARNING, Column, Document, Entry, Row, Table, provenance_text
from skimrnn.training.record import ReadingRecord

READING_COLUMNS = (
    Column("F1 (%)", "f1", value=lambda record: 100 * record.test.f1),
    Column("EM (%)", "em", value=lambda record: 100 * record.test.em),
    Column("Sk (%)", "skim_rate", value=lambda record: 100 * record.test.skim_rate),
    Column("Flop-r", "flop_r", "published convention", "x", lambda record: record.flop_reduction.published_convention),
    Column("Flop-r", "flop_r", "exact count", "x", lambda record: record.flop_reduction.exact_count),
    Column("Sp", "speedup", "whole model", "x", way=WHOLE),
)

_TITLES = {
    "lstm_att_1layer": "LSTM+Att, 1 layer",
    "lstm_att": "LSTM+Att",
    "sk_lstm_att": "Sk-LSTM+Att",
    "bidaf": "BiDAF",
    "sk_bidaf": "Sk-BiDAF",
    **CITED,
}

_Settings = tuple[str, int | None, int | None, float | None]
"""System, d, d' and gamma: what tells the rows apart."""


def reading_document(results: Results[ReadingRecord]) -> Document:
    """The question answering table of each dataset."""
    kind = "synthetic stand-in corpora" if results.synthetic else "paper and ours"
    tables = [
        Table(
            dataset,
            get_dataset(dataset).title,
            provenance_text(results, dataset, SCORED_SPLIT),
            READING_COLUMNS,
            reading_rows(results, dataset),
        )
        for dataset in results.config.datasets
    ]
    return Document(
        "question_answering",
        f"Question answering, {results.config.scale} scale: {kind}",
        WARNING if results.synthetic else None,
        LEGEND,
        tables,
    )


def reading_rows(results: Results[ReadingRecord], dataset: str) -> list[Row]:
    """The paper's rows in their order, then the config's models that the paper has no row for.

    Models that the settings do not tell apart have a row each, with their names.
    """
    models: dict[_Settings, list[str | None]] = {}
    for name, model in results.config.models_of(dataset).items():
        models.setdefault(_settings_of(model), []).append(name)
    printed = dict.fromkeys(_settings_of(value) for value in published_values() if value.table == dataset)
    rows = []
    for settings in printed | dict.fromkeys(models):
        names = models.get(settings) or [None]
        rows += [_row(results, dataset, settings, name, f", {name}" * (len(names) > 1)) for name in names]
    return rows


def _settings_of(row: ModelConfig | PublishedValue) -> _Settings:
    if isinstance(row, PublishedValue):
        return row.system, row.hidden_size, row.small_size, row.gamma
    assert isinstance(row, ReaderConfig)
    if isinstance(row, BiDAFConfig | SkimBiDAFConfig):
        system = "bidaf"
    else:
        system = "lstm_att" + ("" if row.num_layers == 2 else f"_{row.num_layers}layer")
    if isinstance(row, SkimReaderConfig):
        return f"sk_{system}", row.hidden_size, row.small_size, row.gamma
    return system, row.hidden_size, None, None


def _row(results: Results[ReadingRecord], dataset: str, settings: _Settings, name: str | None, mark: str) -> Row:
    system, hidden_size, small_size, gamma = settings
    title = _TITLES.get(system, system)
    if gamma is not None:
        title += f" {sizes_text(small_size, gamma)}"
    if hidden_size is not None:
        title += f", d = {hidden_size}"
    title += mark
    entries = []
    for column in READING_COLUMNS:
        printed = published_value(dataset, system, column.metric, hidden_size, small_size, gamma)
        # The paper prints one Flop-r a system: it stands in the column of the published convention.
        published = None if column.convention == "exact count" else printed
        nothing = system in CITED or (column.metric in ("skim_rate", "speedup") and gamma is None)
        if nothing or name is None:
            entries.append(Entry(column, published, None, *([NOTHING] if nothing else [])))
        elif column.value:
            entries.append(Entry(column, published, results.measured(dataset, name, column.value)))
        else:
            entries.append(Entry(column, published, results.speedup(dataset, name, column.way)))
    runs = results.of_model(dataset, name) if name else ()
    stands = sorted(run.record.training.steps for run in runs if run.record.training.stopped == "unfinished")
    if stands:
        steps = " to ".join(f"{step:,}" for step in sorted({stands[0], stands[-1]}))
        which = f"{len(stands)} of {len(runs)} stand" if len(stands) < len(runs) else "stands"
        title += f" ({which} at step {steps} of {runs[0].record.config.training.max_steps:,})"
    seeds = tuple(run.record.config.seed for run in runs)
    return Row(title, name or system, results.config.models[name] if name else None, seeds, tuple(entries))


LEGEND = (
    "Ours is the mean ± sample standard deviation over n seeds, as mean ± sd (n), on the "
    "development set, by which the best weights were chosen, too, as in the paper: the test set is not public. F1 and "
    "EM are those of the likeliest span of at most 15 tokens. Sk is the share of the contexts' tokens skimmed, over "
    "all layers and directions. Flop-r compares the float operations of whole models with those of LSTM+Att or BiDAF, "
    "d = 100: a skimmed token counts as (d'/d)² of a read one in the published convention, as what the small cell "
    "costs in the exact count; it is no speed-up. Sp is the measured speed-up of the whole model over the standard one "
    "of the same size, with our kernels on one CPU thread, on contexts in the batches of the evaluation. Rows: d'/γ. "
    "'not run': no record; '-': nothing printed in the paper, or nothing to measure here. "
    # Why the printed Flop-r differs from what our models give, row by row (tests/reporting/test_printed_flops.py).
    "Where the printed Flop-r differs from our count at the same sizes and skim rates, with the paper's word vectors "
    "of 100 dimensions (in brackets: of 200): LSTM+Att of 1 layer, 1.3x against 1.7x (1.4x), and d = 50, 3.6x against "
    "2.7x (2.3x): of ours, the second layer takes 42 % (28 %) of the operations, and the 300 (600) inputs of the first "
    "do not shrink with d. Sk-LSTM+Att, 1.4x to 2.3x against 1.6x to 3.5x (1.5x to 3.2x): the printed values follow 1 "
    "/ (0.24 + 0.76 ((1 - Sk) + Sk (d'/d)²)), with 24 % of the operations outside the layers; of ours, in attention "
    "and output, 2 % (6 %). BiDAF, d = 30 and 50, 9.1x and 3.7x against 5.1x and 2.9x: characters and highway "
    "layers, 10 % of the operations at d = 100, do not shrink with d; the LSTMs alone give 9.5x and 3.7x. "
    "Sk-BiDAF, 2.8x and 1.7x against 2.0x and 1.5x: even the LSTMs alone give 2.3x and 1.5x, so the paper's large "
    "LSTMs (modelling and output) skim more than the average that it prints, or a skimmed token counts as less."
)
