import csv
from importlib import resources

import pytest

from skimrnn.data.registry import DATASETS
from skimrnn.published import published_value, published_values
from skimrnn.published.claims import published_claims
from skimrnn.reporting.claims import MEASURES
from skimrnn.reporting.statistics import STATISTICS


def test_every_line_of_the_file_can_be_looked_up():
    lines = list(csv.DictReader(resources.files("skimrnn.published").joinpath("numbers.csv").open()))
    assert len(lines) == len(published_values()) > 150
    for line, row in zip(lines, published_values(), strict=True):
        found = published_value(row.dataset, row.system, row.metric, row.hidden_size, row.small_size, row.gamma)
        assert found == row.value == float(line["value"])


@pytest.mark.parametrize("dataset", ["sst", "rotten_tomatoes", "imdb", "ag_news"])
def test_the_classification_grid_is_whole(dataset: str):
    assert published_value(dataset, "lstm", "accuracy", 100) is not None
    for small in (5, 10):
        for gamma in (0.01, 0.02):
            for metric in ("accuracy", "skim_rate", "flop_r", "speedup"):
                assert published_value(dataset, "skim_lstm", metric, 100, small, gamma) is not None
    assert published_value(dataset, "sota", "accuracy") is not None


def test_a_setting_the_paper_does_not_print_has_no_value():
    assert published_value("sst", "skim_lstm", "accuracy", 100, 5, 0.03) is None
    assert published_value("sst", "skim_lstm", "accuracy") is None
    assert published_value("sst", "lstm_jump", "accuracy") is None
    assert published_value("imdb", "vcrnn", "accuracy") is None


def test_the_sizes_in_the_registry_are_those_of_the_paper():
    for dataset in (dataset for dataset in DATASETS.values() if dataset.on_hub):
        train = published_value(dataset.name, "", "train_examples")
        validation = published_value(dataset.name, "", "validation_examples")
        assert published_value(dataset.name, "", "test_examples") == dataset.rows.get("test")
        if dataset.validation_rows is None:
            assert (train, validation) == (dataset.rows["train"], dataset.rows["validation"])
        else:
            assert train is not None
            assert (train + dataset.validation_rows, validation) == (dataset.rows["train"], dataset.validation_rows)


def test_each_of_the_twelve_claims_has_a_rule_and_each_statistic_a_use():
    claims = published_claims()
    assert [claim.number for claim in claims] == list(range(1, 13))
    used = [part.statistic for claim in claims for part in claim.parts]
    assert sorted(used) == sorted(STATISTICS) == sorted(MEASURES)
    assert all(len(part.rule) > 40 for claim in claims for part in claim.parts)
