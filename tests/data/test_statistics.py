"""The dataset table: what is counted, and what stands beside the paper's figures."""

from pathlib import Path

import pyarrow as pa
import pytest

from skimrnn.data.registry import DATASETS
from skimrnn.data.statistics import DatasetStatistics, count_dataset
from skimrnn.files import write_json, write_parquet
from skimrnn.published import published_value
from skimrnn.reporting.datasets import best_convention, dataset_markdown, write_dataset_tables

SST = DATASETS["sst"]


@pytest.fixture
def counted(tmp_path: Path) -> DatasetStatistics:
    """Six texts of SST, one of which stands in train and test."""
    texts = {"train": ["The film , the Film .", "a film"], "validation": ["a play ."], "test": ["a film", "", "Bad"]}
    splits = {}
    for split, rows in texts.items():
        write_parquet(tmp_path / f"{split}.parquet", pa.table({"text": rows, "label": [0] * len(rows)}))
        splits[split] = {"rows": len(rows), "official_rows": SST.rows[split], "sha256": f"of {split}"}
    manifest = {"source": "mirror", "revision": "abc", "complete": False, "splits": splits}
    write_json(tmp_path / "manifest.json", manifest)
    return count_dataset(SST, tmp_path, 0, {"film", "bad", "play"})


def test_every_convention_counts_what_it_says(counted: DatasetStatistics) -> None:
    assert counted.rows == {"train": 2, "validation": 1, "test": 3}
    assert counted.vocabulary == {
        "lower-cased": 5,  # the film , . a
        "case kept": 7,
        "without punctuation": 3,
        "at least twice": 2,  # the, film
        "at least five times": 0,
        "with a GloVe vector": 1,
        "all splits, lower-cased": 7,
        "all splits, with a GloVe vector": 3,
    }
    assert counted.mean_length == {"all tokens": 14 / 6, "without punctuation": 11 / 6}
    assert counted.leaks == {"test that stand in train": 1}
    assert counted.empty == 1
    assert counted.digests["test"] == "of test"


def test_the_best_convention_is_the_nearest_over_complete_datasets(counted: DatasetStatistics) -> None:
    printed = published_value("sst", "", "vocabulary_size")
    assert printed is not None
    names = list(counted.vocabulary)
    near = counted.model_copy(
        update={"complete": True, "vocabulary": {n: int(printed * (1 + place / 10)) for place, n in enumerate(names)}}
    )
    misleading = counted.model_copy(update={"vocabulary": dict.fromkeys(names, 0) | {names[3]: int(printed)}})
    name, distance = best_convention([near, misleading], "vocabulary")
    assert name == names[0]
    assert distance == pytest.approx(0, abs=1e-4)


def test_the_table_names_what_is_incomplete_what_leaks_and_what_the_paper_prints(
    counted: DatasetStatistics, tmp_path: Path
) -> None:
    text = dataset_markdown([counted])
    assert "SST is incomplete: train holds 2 of 6,920 rows, validation holds 1 of 872 rows" in text
    assert "- SST: 1 texts of test that stand in train." in text
    assert "- SST: 1 texts without a token." in text
    assert "| SST       | 6,920 \\| 2 | 872 \\| 1" in text
    assert "19 \\| 2" in text
    write_dataset_tables([counted], tmp_path / "report")
    lines = (tmp_path / "report" / "datasets.csv").read_text().splitlines()
    assert "sst,vocabulary_size,with a GloVe vector,13750,1" in lines
    assert "Incomplete: SST." in (tmp_path / "report" / "datasets.tex").read_text()
    stand_in = counted.model_copy(update={"dataset": "cbt_mini_ne", "complete": True})
    assert "a stand-in of ours; it is not the Children's Book Test" in dataset_markdown([stand_in])
