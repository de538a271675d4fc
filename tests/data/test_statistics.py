"""The dataset table: what is counted, and what stands beside the paper's figures."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from skimrnn.data.registry import DATASETS
from skimrnn.data.squad import tokenise_questions
from skimrnn.data.statistics import DatasetStatistics, count_dataset, count_datasets, count_questions
from skimrnn.data.tokens import count_leaks
from skimrnn.errors import UserError
from skimrnn.files import write_json, write_parquet
from skimrnn.published import published_value
from skimrnn.reporting.datasets import best_convention, dataset_markdown, write_dataset_tables
from skimrnn.reporting.html.corpora import read_corpora
from skimrnn.reporting.html.origins import Origins

SST = DATASETS["sst"]


@pytest.fixture
def counted(tmp_path: Path) -> DatasetStatistics:
    """Six texts of SST, one of which stands in train and test."""
    texts = {"train": ["The film , the Film .", "a film"], "validation": ["a play ."], "test": ["a film", "", "Bad"]}
    splits = {}
    for split, rows in texts.items():
        write_parquet(tmp_path / f"{split}.parquet", pa.table({"text": rows, "label": [0] * len(rows)}))
        splits[split] = {"rows": len(rows), "official_rows": SST.rows[split], "sha256": f"of {split}"}
    manifest = {"dataset": "sst", "source": "mirror", "revision": "abc", "complete": False, "splits": splits}
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


def test_questions_are_counted_with_their_contexts(tmp_path: Path) -> None:
    train = [("A dog ran.", "Who ran?"), ("A dog ran.", "Did it run?"), ("It sat by the Dog.", "Who sat?")]
    for split, pairs in {"train": train, "validation": train[:1]}.items():
        rows = [
            {"id": str(n), "context": context, "question": question, "answers": [context[:5]], "starts": [0]}
            for n, (context, question) in enumerate(pairs)
        ]
        write_parquet(tmp_path / "raw" / f"{split}.parquet", pa.Table.from_pylist(rows))
    splits = {split: {"rows": 1, "official_rows": 1, "sha256": "x"} for split in ("train", "validation")}
    manifest = {"dataset": "squad", "source": "mirror", "revision": None, "complete": True, "splits": splits}
    write_json(tmp_path / "raw" / "manifest.json", manifest)
    tokenise_questions(DATASETS["squad"], tmp_path / "raw", tmp_path / "tokens")
    counted = count_questions(DATASETS["squad"], tmp_path / "tokens", {"dog", "ran", "run"})
    assert counted.rows == {"train": 3, "validation": 1}
    # a dog ran . who ? did it run sat by the; cased: A dog ran . Who ? Did it run It sat by the Dog
    assert (counted.vocabulary["lower-cased"], counted.vocabulary["case kept"]) == (12, 14)
    assert counted.vocabulary["with a GloVe vector"] == 3
    assert counted.vocabulary["at least twice"] == 7  # dog ran . who ? it sat
    assert counted.mean_length == {"all tokens": (4 + 4 + 6 + 4) / 4, "without punctuation": (3 + 3 + 5 + 3) / 4}
    assert counted.leaks == {"validation that stand in train": 2}


def test_what_was_fetched_is_counted(
    counted: DatasetStatistics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fetched").mkdir()
    (tmp_path / "fetched" / "sst").symlink_to(tmp_path)
    assert count_datasets(tmp_path / "fetched", None, 0, {"film", "bad", "play"}) == [counted]
    assert capsys.readouterr().err == "counting sst\n"
    with pytest.raises(UserError, match="nothing: no dataset in it: fetch one first"):
        count_datasets(tmp_path / "nothing", tmp_path / "nothing", 0, set())


def test_a_text_that_differs_in_capitals_stands_in_both_splits() -> None:
    """As where texts are tokenised for training, without their capitals."""
    tables = {"train": pa.table({"tokens": ["A film ."]}), "test": pa.table({"tokens": ["a Film .", "a film"]})}
    assert count_leaks(tables) == {"test that stand in train": 1}


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


def test_of_incomplete_datasets_no_convention_is_the_nearest(counted: DatasetStatistics, tmp_path: Path) -> None:
    assert best_convention([counted], "vocabulary")[1] is None
    write_json(tmp_path / "statistics.json", [counted.model_dump(mode="json")])
    corpora = read_corpora(tmp_path / "statistics.json", Origins())
    assert corpora is not None
    for text in (dataset_markdown([counted]), corpora.note):
        assert "nan" not in text and "nearest" not in text
    near = counted.model_copy(update={"complete": True})
    assert "these lie nearest to the paper's figures (mean distance" in dataset_markdown([near])


def test_the_table_names_what_is_incomplete_what_leaks_and_what_the_paper_prints(
    counted: DatasetStatistics, tmp_path: Path
) -> None:
    text = re.sub(" +", " ", dataset_markdown([counted]))
    assert "SST is incomplete: train holds 2 of 6,920 rows, validation holds 1 of 872 rows" in text
    assert "- SST: 1 text of test also in train." in text
    assert "- SST: 1 text without a token." in text
    assert "| SST | 6,920 \\| 2 | 872 \\| 1" in text
    assert "19 \\| 2" in text
    write_dataset_tables([counted], tmp_path / "report")
    lines = (tmp_path / "report" / "datasets.csv").read_text().splitlines()
    assert "sst,vocabulary_size,with a GloVe vector,13750,1" in lines
    assert "Incomplete: SST." in (tmp_path / "report" / "datasets.tex").read_text()
    assert "| SQuAD v1.1 | 87,599 \\| not at hand" in text
    assert "| CBT-NE | 108,719 \\| not at hand" in text
    assert "a span of the text" in text
    assert "children" not in text  # The paper does not know the stand-ins.
    stand_in = counted.model_copy(update={"dataset": "cbt_mini_ne", "complete": True})
    assert "a stand-in of ours; it is not the Children's Book Test" in dataset_markdown([stand_in])
