from pathlib import Path

import pytest
import yaml

from skimrnn.config import Config, VectorsConfig, read_config
from skimrnn.data.registry import DATASETS
from skimrnn.errors import UserError
from skimrnn.files import read_json
from skimrnn.reporting.reading_table import reading_rows
from skimrnn.reporting.records import Results
from tests.conftest import ROOT

SMOKE = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())


def changed(path: str, value: object) -> dict:
    """The smoke config with one value changed; the path's parts are joined by '/'."""
    config = yaml.safe_load(yaml.safe_dump(SMOKE))
    *parents, last = path.split("/")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    return config


@pytest.mark.parametrize("name", ["paper", "smoke"])
def test_both_scales_are_valid_and_have_the_papers_rows(name: str) -> None:
    config = read_config(ROOT / "config" / f"{name}.yaml").for_task("classification")
    table, more = (
        [(None, None), (5, 0.01), (10, 0.01), (5, 0.02), (10, 0.02)],
        [(20, 0.01), (20, 0.02), (0, 0.01), (0, 0.02)],
    )
    twice = [(None, None), (5, 0.01), (10, 0.01), (5, 0.02), (10, 0.02), (20, 0.01), (20, 0.02)]
    for dataset in config.datasets:
        rows: dict[int, list[tuple[int | None, float | None]]] = {}
        for model in config.models_of(dataset).values():
            row = (getattr(model, "small_size", None), getattr(model, "gamma", None))
            rows.setdefault(model.hidden_size, []).append(row)
        small = name == "paper" and dataset in ("sst", "rotten_tomatoes")
        assert rows == ({100: table + more, 200: twice} if small else {100: table})


@pytest.mark.parametrize("name", ["paper", "smoke"])
def test_both_scales_have_the_papers_readers(name: str) -> None:
    config = read_config(ROOT / "config" / f"{name}.yaml").for_task("question_answering")
    rows = reading_rows(Results(config, {}, {}), "squad")
    assert [row.title for row in rows if row.model is None] == ["VCRNN", "SOTA"]
    assert len(rows) == len(config.models) + 2 == 15


def test_the_paper_scale_is_the_papers_recipe() -> None:
    config = read_config(ROOT / "config" / "paper.yaml")
    training = config.training
    assert (training.learning_rate, training.patience) == (1e-4, 3000)
    assert (training.temperature_decay, training.temperature_floor) == (1e-4, 0.5)
    datasets = config.for_task("classification").datasets
    sizes = {name: dataset.batch_size for name, dataset in datasets.items() if DATASETS[name].on_hub}
    assert sizes == {"sst": 32, "rotten_tomatoes": 32, "imdb": 128, "ag_news": 128, "cbt_ne": 128, "cbt_cn": 128}


def test_the_schema_file_is_generated_from_the_model() -> None:
    schema = read_json(ROOT / "workflow" / "schemas" / "config.schema.json")
    assert schema == Config.model_json_schema(), "run: python -m skimrnn schema"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("trainings", {}, "trainings: unknown key"),
        ("training/learning_rat", 1, r"training\.learning_rat: unknown key"),
        ("datasets/sst3", {"batch_size": 1}, "datasets: unknown dataset sst3: choose among sst, rotten_tomatoes"),
        ("models/lstm/architecture", "gru", r"models\.lstm: .*'lstm', 'skim_lstm'"),
        ("models/skim-5-0.01/small_size", 101, "small_size 101 is larger than hidden_size 100"),
        ("models/skim-5-0.01/gamma", -0.1, r"gamma: Input should be greater than or equal to 0"),
        ("models/skim-5-0.01/gamma", float("nan"), r"gamma: Input should be .*"),
        ("training/learning_rate", 0, "learning_rate: Input should be greater than 0"),
        ("training/patience", 1, "training: a patience below validate_every ends training before any validation"),
        ("seeds", [], "seeds: List should have at least 1 item"),
        ("seeds", [1, 1], "seeds: seeds must be distinct"),
        ("datasets/sst/seeds", [-1], r"datasets\.sst\.seeds: seeds must be distinct, not negative"),
        ("data/source", "mirror", "data: source is mirror, so mirror must name its folder"),
        ("vectors/source", "file", "vectors: source is file, so path must name it"),
        ("vectors/source", "file+corpus", r"vectors: source is file\+corpus, so path must name it"),
        (
            "vectors/file_dimension",
            50,
            r"vectors: file_dimension is for source file\+corpus, and source is \w+: remove it",
        ),
        (
            "vectors",
            {"source": "file+corpus", "path": "v.txt", "dimension": 50, "file_dimension": 50},
            r"vectors: source is file\+corpus, so file_dimension must be from 1 to 49",
        ),
        ("scale", "../x", "scale: String should match pattern"),
        ("datasets/sst/models", [], r"datasets\.sst\.models: List should have at least 1 item"),
        ("datasets/sst/models", ["gru"], r"datasets\.sst\.models: gru: choose among lstm, skim-10-0\.01"),
        ("datasets/sst/models", ["bidaf"], r"datasets\.sst\.models: bidaf: choose among lstm, skim-10-0\.01"),
        ("datasets/squad/models", ["lstm_att"], "no dataset for the model bidaf, bidaf-30, "),
        ("datasets/squad/context_limit", 0, r"datasets\.squad\.context_limit: Input should be greater than 0"),
        ("datasets/sst/context_limit", 9, r"datasets\.sst\.context_limit is for question answering: remove it"),
        ("models/sk_lstm_att-20-0.1/small_size", 101, "small_size 101 is larger than hidden_size 100"),
        ("models/sk_lstm_att-20-0.1/init_from/model", "lstm", "init_from: 'lstm' is not this model's standard"),
        ("models/sk_lstm_att-20-0.1/hidden_size", 200, "init_from: 'lstm_att' is not this model's standard"),
        ("models/sk_lstm_att-20-0.1/init_from/step", 15, "step 15 is not one of the validations on squad"),
        ("models/sk_lstm_att-20-0.1/init_from/step", 30, "step 30 is not one of the validations on squad"),
        ("models/sk_lstm_att-20-0.1/init_from", {"model": "lstm_att", "step": 5}, "must share one step"),
        ("models/sk_bidaf-50-0.01/small_size", 101, "small_size 101 is larger than hidden_size 100"),
        ("models/sk_bidaf-50-0.01/init_from/model", "lstm_att", "init_from: 'lstm_att' is not this model's standard"),
        ("models/sk_bidaf-50-0.01/ema_decay", 0.9, "init_from: 'bidaf' is not this model's standard"),
        ("models/bidaf/ema_decay", 1, r"models\.bidaf\.bidaf\.ema_decay: Input should be less than 1"),
        ("datasets", {"squad": {"batch_size": 32}}, "no dataset for the model lstm, skim"),
        ("models", {"lstm": {"architecture": "lstm", "hidden_size": 3}}, "no model for the dataset squad: add one"),
        ("models/..%2fx", {"architecture": "lstm", "hidden_size": 3}, "becomes a folder"),
    ],
)
def test_mistakes_are_named(path: str, value: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changed(path, value)))
    with pytest.raises(UserError, match=rf"mine\.yaml: .*{message}"):
        read_config(tmp_path / "mine.yaml")


def test_a_dataset_can_name_its_models(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changed("datasets/sst/models", ["skim-5-0.01", "lstm"])))
    config = read_config(tmp_path / "mine.yaml")
    assert list(config.models_of("sst")) == ["lstm", "skim-5-0.01"]
    assert config.timed_models("sst") == ["skim-5-0.01"]
    with pytest.raises(
        UserError, match=r"unknown model 'skim-10-0\.02': for sst the smoke config has lstm, skim-5-0\.01"
    ):
        config.run("sst", "skim-10-0.02", 0)
    assert len(config.models_of("ag_news")) == 5


def test_a_dataset_that_names_its_models_names_those_that_they_start_from(tmp_path: Path) -> None:
    readers = [name for name in SMOKE["models"] if "att" in name or "bidaf" in name]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changed("datasets/squad/models", readers)))
    assert set(read_config(tmp_path / "mine.yaml").models_of("squad")) == set(readers)
    config = changed("datasets/squad/models", [name for name in readers if name != "lstm_att"])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"no dataset for the model lstm_att: add one"):
        read_config(tmp_path / "mine.yaml")
    del config["models"]["lstm_att"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"init_from: 'lstm_att' is not this model's standard counterpart"):
        read_config(tmp_path / "mine.yaml")


def test_datasets_and_models_meet_by_task() -> None:
    config = read_config(ROOT / "config" / "smoke.yaml")
    reading = config.for_task("question_answering")
    assert config.tasks == ["classification", "question_answering"]
    assert (list(reading.datasets), list(reading.models)) == (["squad"], list(config.models_of("squad")))
    assert {model.architecture for model in reading.models.values()} == {
        "lstm_att",
        "skim_lstm_att",
        "bidaf",
        "skim_bidaf",
    }
    assert set(config.models_of("sst")) == set(config.models) - set(reading.models)
    with pytest.raises(UserError, match="unknown model 'lstm': for squad the smoke config has lstm_att"):
        config.run("squad", "lstm", 0)
    first = config.first_steps("squad", "sk_lstm_att-0-0.1")
    assert first is not None and (first.model, first.step) == ("lstm_att", 10)
    assert config.first_steps("squad", "lstm_att") == first
    assert config.first_steps("sst", "lstm") is None


def test_a_dataset_may_have_a_recipe_and_seeds_of_its_own(tmp_path: Path) -> None:
    settings = changed("datasets/ag_news/training", {"max_steps": 7})
    settings["datasets"]["sst"]["seeds"] = [2, 3]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    config = read_config(tmp_path / "mine.yaml")
    assert config.run("ag_news", "lstm", 0).training.max_steps == 7
    assert config.run("sst", "lstm", 2).training == config.training
    assert (config.seeds_of("sst"), config.seeds_of("ag_news")) == ([2, 3], [0])


@pytest.mark.parametrize("source", ["glove", "file", "corpus", "file+corpus", "random"])
def test_a_record_says_the_seed_of_its_word_vectors(source: str) -> None:
    of_file = {"path": "folder/v.txt", "file_dimension": 50 if "+" in source else None} if "file" in source else {}
    settings = VectorsConfig.model_validate({"source": source, "seed": 7} | of_file).settings()
    assert settings["seed"] == 7 and "folder" not in str(settings)


def test_unknown_models_list_the_known_ones() -> None:
    config = read_config(ROOT / "config" / "smoke.yaml")
    with pytest.raises(UserError, match=r"unknown model 'gru': for sst the smoke config has lstm, skim-5-0\.01"):
        config.run("sst", "gru", 0)


def test_broken_yaml_and_missing_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("scale: [")
    with pytest.raises(UserError, match=r"mine\.yaml: not valid YAML \(line 1\): mend the file"):
        read_config(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text("scale: mine\nseeds: *five")
    with pytest.raises(UserError, match=r"not valid YAML \(line 2\): found undefined alias 'five'"):
        read_config(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text("scale: mine\n---\nscale: yours")
    with pytest.raises(UserError, match="expected a single document in the stream but found another document"):
        read_config(tmp_path / "mine.yaml")
    with pytest.raises(UserError, match=r"cannot read .*none\.yaml: no such file"):
        read_config(tmp_path / "none.yaml")
