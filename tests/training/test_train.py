"""The training loop: the same twice, the same after a kill, honest about the test split, loud about NaN."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from skimrnn.config import Config, SkimLSTMConfig
from skimrnn.data.batches import Batch, evaluation_batches
from skimrnn.data.embedded import lexicon
from skimrnn.data.prepare import Prepared
from skimrnn.data.registry import DATASETS
from skimrnn.errors import UserError
from skimrnn.files import only_user, read_json, read_tensors, sha256_of_file, write_tensors
from skimrnn.measures.flops import flop_reduction
from skimrnn.models import Classifier
from skimrnn.provenance import environment
from skimrnn.training import classification
from skimrnn.training.classification import build_classifier, training_loss
from skimrnn.training.evaluate import Scores, evaluate
from skimrnn.training.record import load_classifier, read_record, write_record
from skimrnn.training.train import temperature_at, train
from tests.command_line import train_command
from tests.conftest import Silent, small_config


class KilledError(Exception):
    pass


class KillAt(Silent):
    """Stops the run at a step, as a kill would."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.kill_at = step

    def update(self, step: int, expected_steps: int, status: str) -> None:
        if step == self.kill_at:
            raise KilledError


def run_to_record(config: Config, model: str, prepared: Prepared, folder: Path) -> bytes:
    train(config.run("sst", model, 0), prepared, folder, Silent())
    write_record(config.run("sst", model, 0), prepared, folder, folder / "0.json")
    return (folder / "0.json").read_bytes()


@pytest.mark.parametrize("model", ["lstm", "skim"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    model: str, prepared: Prepared, tmp_path: Path
) -> None:
    config = small_config()
    first = run_to_record(config, model, prepared, tmp_path / "first")
    assert run_to_record(config, model, prepared, tmp_path / "second") == first
    train(config.run("sst", model, 1), prepared, tmp_path / "other", Silent())
    weights = [read_tensors(tmp_path / name / "weights.safetensors")[0] for name in ("first", "second", "other")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["output.weight"], weights[2]["output.weight"])


@pytest.mark.parametrize("step", [7, 20, 59])
def test_a_run_that_was_cut_off_resumes_to_the_same_bytes(step: int, prepared: Prepared, tmp_path: Path) -> None:
    config = small_config()
    expected = run_to_record(config, "skim", prepared, tmp_path / "whole")
    with pytest.raises(KilledError):
        train(config.run("sst", "skim", 0), prepared, tmp_path / "cut", KillAt(step))
    assert (tmp_path / "cut" / "checkpoint.safetensors").exists() == (step >= 20)
    assert run_to_record(config, "skim", prepared, tmp_path / "cut") == expected


def test_sigkill_at_random_points_resumes_to_the_same_bytes(prepared: Prepared, tmp_path: Path) -> None:
    config = small_config(max_steps=300, validate_every=5)
    expected = run_to_record(config, "skim", prepared, tmp_path / "whole")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    arguments = train_command(tmp_path / "config.yaml", prepared, tmp_path / "killed", model="skim")
    command = [sys.executable, "-m", "skimrnn", *arguments]
    random = np.random.default_rng()
    kills = 0
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    while kills < 3:
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
        kills += 1
    assert not (tmp_path / "killed" / "weights.safetensors").exists()
    assert run_to_record(config, "skim", prepared, tmp_path / "killed") == expected


def test_a_run_that_began_on_a_cpu_goes_on_where_there_is_a_gpu(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint holds no random numbers of a GPU."""
    run = small_config().run("sst", "skim", 0)
    train(run, prepared, tmp_path, Silent(), until=20)
    reporter = Silent()
    with monkeypatch.context() as patch:
        patch.setattr("skimrnn.training.checkpoint._on_gpu", lambda model: True)
        patch.setattr("torch.cuda.get_rng_state", torch.get_rng_state)
        train(run, prepared, tmp_path, reporter)
    assert reporter.messages == ["goes on from step 20"]


def test_a_run_at_its_limit_goes_on_where_the_limit_is_raised(prepared: Prepared, tmp_path: Path) -> None:
    expected = run_to_record(small_config(), "skim", prepared, tmp_path / "whole")
    run_to_record(small_config(max_steps=40), "skim", prepared, tmp_path / "raised")
    reporter = Silent()
    train(small_config().run("sst", "skim", 0), prepared, tmp_path / "raised", reporter)
    assert reporter.messages == ["goes on from step 40"]
    assert run_to_record(small_config(), "skim", prepared, tmp_path / "raised") == expected
    with pytest.raises(UserError, match="stands at step 60, past step 40: delete it"):
        train(small_config(max_steps=40).run("sst", "skim", 0), prepared, tmp_path / "raised", Silent())


def test_a_run_validated_at_a_limit_of_its_own_starts_anew_where_it_is_raised(
    prepared: Prepared, tmp_path: Path
) -> None:
    expected = run_to_record(small_config(), "skim", prepared, tmp_path / "whole")
    run_to_record(small_config(max_steps=50), "skim", prepared, tmp_path / "raised")  # Validated at 20, 40 and 50.
    assert run_to_record(small_config(), "skim", prepared, tmp_path / "raised") == expected


@pytest.mark.parametrize("other", ["config", "data", "code", "start"])
def test_a_checkpoint_of_another_config_data_code_or_start_is_not_used(
    other: str, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data, start = small_config().run("sst", "lstm", 0), prepared, tmp_path / "start.safetensors"
    weights = build_classifier(small_config().models["lstm"], prepared.vectors(), 2).state_dict()
    write_tensors(start, weights)
    train(run, data, tmp_path / "run", Silent(), start=start)
    if other == "config":
        run = small_config(learning_rate=0.001).run("sst", "lstm", 0)
    elif other == "data":
        data = Prepared(prepared.folder, prepared.manifest | {"digest": "1f" * 32})
    elif other == "code":
        monkeypatch.setattr("skimrnn.training.train.code_digest", lambda *_: "1f" * 32)
    else:
        write_tensors(start, {name: -tensor for name, tensor in weights.items()})
    reporter = Silent()
    train(run, data, tmp_path / "run", reporter, start=start)
    assert reporter.messages == ["starts anew: the checkpoint is of another config, data or code"]
    train(run, data, tmp_path / "alone", Silent(), start=start)
    assert (tmp_path / "run/training.json").read_bytes() == (tmp_path / "alone/training.json").read_bytes()


def test_weights_of_another_config_or_other_data_are_not_scored(prepared: Prepared, tmp_path: Path) -> None:
    run = small_config().run("sst", "skim", 0)
    train(run, prepared, tmp_path, Silent())
    gamma = run.model.model_copy(update={"gamma": 0.9})
    others = [
        (run.model_copy(update={"model": gamma}), prepared),
        (run, Prepared(prepared.folder, prepared.manifest | {"digest": "1f" * 32})),
    ]
    for other, data in others:
        with pytest.raises(UserError, match=r"weights\.safetensors: of another config or other data: train the run"):
            write_record(other, data, tmp_path, tmp_path / "0.json")
    path = tmp_path / "weights.safetensors"
    write_tensors(path, read_tensors(path)[0])
    with pytest.raises(UserError, match=r"weights\.safetensors: does not say which run it is of"):
        write_record(run, prepared, tmp_path, tmp_path / "0.json")
    assert not (tmp_path / "0.json").exists()


def test_a_run_that_ended_keeps_the_machine_that_it_ended_on(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_config().run("sst", "skim", 0)
    train(run, prepared, tmp_path, Silent())
    written = (tmp_path / "training.json").read_bytes()
    (tmp_path / "training.json").unlink()
    here = environment()
    monkeypatch.setattr("skimrnn.training.train.environment", lambda _: here.model_copy(update={"cpu": "another"}))
    train(run, prepared, tmp_path, Silent())
    assert (tmp_path / "training.json").read_bytes() == written
    train(small_config(max_steps=80).run("sst", "skim", 0), prepared, tmp_path, Silent())  # Here it goes on.
    assert read_json(tmp_path / "training.json")["environment"]["cpu"] == "another"


def test_a_truncated_checkpoint_says_what_to_do(prepared: Prepared, tmp_path: Path) -> None:
    run = small_config().run("sst", "lstm", 0)
    train(run, prepared, tmp_path, Silent())
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"checkpoint\.safetensors: truncated .* delete it"):
        train(run, prepared, tmp_path, Silent())


def test_training_never_opens_the_test_split(prepared: Prepared, tmp_path: Path) -> None:
    copy = shutil.copytree(prepared.folder, tmp_path / "prepared")
    (copy / "test.safetensors").unlink()
    train(small_config().run("sst", "skim", 0), Prepared(copy, prepared.manifest), tmp_path / "run", Silent())
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_the_best_weights_by_validation_are_kept_and_patience_ends_the_run(prepared: Prepared, tmp_path: Path) -> None:
    config = small_config(max_steps=2000, patience=60, validate_every=10)
    train(config.run("sst", "lstm", 0), prepared, tmp_path, Silent())
    training = read_json(tmp_path / "training.json")
    accuracies = {entry["step"]: entry["validation"]["accuracy"] for entry in training["history"]}
    assert training["stopped"] == "patience"
    assert accuracies[training["best_step"]] == max(accuracies.values())
    assert training["steps"] == training["best_step"] + 60
    model = build_classifier(config.models["lstm"], prepared.vectors(), 2)
    model.load_state_dict(read_tensors(tmp_path / "weights.safetensors")[0])
    assert evaluate(model, prepared.split("validation")).accuracy == max(accuracies.values())


def test_a_score_that_is_only_as_good_is_no_better(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.5, 0.7, 0.7, 0.6, 0.7, 0.7])
    scores = Scores(examples=1, tokens=1, accuracy=0, loss=0, skim_rate=0)
    monkeypatch.setattr(
        "skimrnn.training.classification.evaluate",
        lambda *_: scores.model_copy(update={"accuracy": next(accuracies)}),
    )
    config = small_config(patience=30, validate_every=10)
    train(config.run("sst", "lstm", 0), prepared, tmp_path, Silent())
    training = read_json(tmp_path / "training.json")
    assert (training["best_step"], training["steps"], training["stopped"]) == (20, 50, "patience")


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(prepared: Prepared, tmp_path: Path) -> None:
    run = small_config().run("sst", "skim", 0)
    with pytest.raises(KilledError):
        train(run, prepared, tmp_path / "run", KillAt(21))
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    copy = shutil.copytree(prepared.folder, tmp_path / "prepared")
    write_tensors(copy / "vectors.safetensors", {"vectors": torch.full_like(prepared.vectors(), float("nan"))})
    vectors = prepared.manifest["vectors"] | {"sha256": sha256_of_file(copy / "vectors.safetensors")}
    with pytest.raises(UserError, match="not finite at step 1 of test/sst/skim/0: lower"):
        train(run, Prepared(copy, prepared.manifest | {"vectors": vectors}), tmp_path / "other", Silent())
    assert list((tmp_path / "other").glob("*")) == []
    tensors, metadata = read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    tensors["model.output.weight"][0, 0] = float("nan")
    write_tensors(tmp_path / "run" / "checkpoint.safetensors", tensors, metadata)
    poisoned = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    assert poisoned != before
    with pytest.raises(UserError, match=r"not finite at step 21 of test/sst/skim/0: .* checkpoint of step 20 is kept"):
        train(run, prepared, tmp_path / "run", Silent())
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == poisoned
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_validation_that_is_not_finite_is_not_kept(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_config().run("sst", "lstm", 0)
    with pytest.raises(KilledError):
        train(run, prepared, tmp_path, KillAt(21))
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    real = classification.evaluate
    monkeypatch.setattr(classification, "evaluate", lambda *a: real(*a).model_copy(update={"loss": float("nan")}))
    with pytest.raises(UserError, match=r"validation loss is not finite at step 40 .* checkpoint of step 20 is kept"):
        train(run, prepared, tmp_path, Silent())
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_first_steps_that_are_never_taken_are_not_written(prepared: Prepared, tmp_path: Path) -> None:
    run = small_config(learning_rate=1e-12, patience=4, validate_every=4).run("sst", "lstm", 0)
    message = "test/sst/lstm/0 stops learning at step 8, before step 20, .*: raise training.{}"
    with pytest.raises(UserError, match=message.format("patience")):
        train(run, prepared, tmp_path, Silent(), until=20)
    short = small_config(max_steps=8, validate_every=4).run("sst", "lstm", 0)
    with pytest.raises(UserError, match=message.format("max_steps")):
        train(short, prepared, tmp_path / "short", Silent(), until=20)
    assert not list(tmp_path.glob("*step-20*"))
    train(run, prepared, tmp_path, Silent(), until=8)
    assert (tmp_path / "step-8.safetensors").exists()


def test_a_run_has_its_folder_to_itself_and_leaves_it_when_it_ends(prepared: Prepared, tmp_path: Path) -> None:
    run = small_config(max_steps=4).run("sst", "lstm", 0)
    (tmp_path / ".checkpoint.safetensors.x.part").write_text("of a run that was killed")
    with only_user(tmp_path, "trains this run"):
        assert not list(tmp_path.iterdir())
        (part := tmp_path / ".weights.safetensors.y.part").write_text("of a run that goes on")
        with pytest.raises(UserError, match="another process trains this run there: wait for it, or stop it"):
            train(run, prepared, tmp_path, Silent())
        assert part.exists()
    for _ in range(2):
        train(run, prepared, tmp_path, Silent())
    assert not part.exists()


def test_a_termination_is_one_line(prepared: Prepared, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(small_config(max_steps=100_000).model_dump(mode="json")))
    arguments = map(str, train_command(config, prepared, tmp_path / "run"))
    process = subprocess.Popen([sys.executable, "-m", "skimrnn", *arguments], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and said.endswith("interrupted: run the same command to go on\n")
    assert "Traceback" not in said and not list((tmp_path / "run").glob(".*"))


def test_temperature_follows_the_paper() -> None:
    config = small_config(temperature_decay=1e-4).training
    assert temperature_at(0, config) == 1.0
    assert temperature_at(1000, config) == pytest.approx(0.904837, abs=1e-6)
    assert temperature_at(6931, config) == pytest.approx(0.5, abs=1e-4)
    assert temperature_at(50_000, config) == 0.5


def test_gamma_weighs_the_skim_loss(prepared: Prepared) -> None:
    config = small_config().models["skim"]
    assert isinstance(config, SkimLSTMConfig)
    model = build_classifier(config, prepared.vectors(), 2).eval()
    batch = next(evaluation_batches(prepared.split("train"), 8))
    losses = [float(training_loss(model, batch, gamma).detach()) for gamma in (0.0, 1.0, 2.0)]
    skim_loss = float(model(batch.tokens, batch.lengths).decisions.skim_loss().detach())
    assert losses[1] - losses[0] == pytest.approx(skim_loss, rel=1e-5)
    assert losses[2] - losses[0] == pytest.approx(2 * skim_loss, rel=1e-5)


def test_each_step_has_the_schedules_temperature_and_the_models_gamma(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_config().run("sst", "skim", 0)
    seen: list[tuple[float, float]] = []

    def loss(model: Classifier, batch: Batch, gamma: float) -> torch.Tensor:
        seen.append((model.layer.temperature, gamma))
        return training_loss(model, batch, gamma)

    monkeypatch.setattr("skimrnn.training.classification.training_loss", loss)
    train(run, prepared, tmp_path, Silent())
    assert seen == [(temperature_at(step, run.training), 0.05) for step in range(60)]


def test_padding_does_not_reach_the_scores(prepared: Prepared) -> None:
    """The classifier's answer for a text is the same alone and beside a longer one."""
    model = build_classifier(small_config().models["skim"], prepared.vectors(), 2).eval()
    batch = next(evaluation_batches(prepared.split("train"), 256))
    long = torch.nn.functional.pad(batch.tokens, (0, 30), value=5)
    for tokens in (batch.tokens, long):
        logits = model(tokens, batch.lengths).logits
        for row in (0, 100, 255):
            alone = model(tokens[row : row + 1, : batch.lengths[row]], batch.lengths[row : row + 1]).logits
            torch.testing.assert_close(logits[row], alone[0], rtol=0, atol=1e-5)


def test_the_record_says_what_was_run(prepared: Prepared, tmp_path: Path) -> None:
    config = small_config()
    run_to_record(config, "skim", prepared, tmp_path)
    record = read_record(tmp_path / "0.json")
    assert record.config == config.run("sst", "skim", 0)
    assert record.data.digest == prepared.manifest["digest"]
    assert record.test.examples == len(prepared.split("test"))
    assert record.test.tokens == len(prepared.split("test").tokens)
    assert 0 < record.test.skim_rate <= 1
    assert record.flop_reduction == flop_reduction(record.test.skim_rate, 24, 4)
    model = load_classifier(record.config, prepared, tmp_path).eval()
    losses = [
        -model(*batch.inputs).logits.detach().double().log_softmax(1)[torch.arange(len(batch.labels)), batch.labels]
        for batch in evaluation_batches(prepared.split("test"), 128)
    ]
    assert record.test.loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-9)
    text = (tmp_path / "0.json").read_text()
    assert str(tmp_path) not in text
    assert str(Path.cwd()) not in text
    broken = json.loads(text)
    broken["test"]["accuracy"] = "high"
    (tmp_path / "0.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match=r"0\.json: not a record of this version \(test\.accuracy"):
        read_record(tmp_path / "0.json")


def test_the_flop_reduction_of_the_standard_classifier_is_one(prepared: Prepared, tmp_path: Path) -> None:
    run_to_record(small_config(max_steps=20), "lstm", prepared, tmp_path)
    reduction = read_record(tmp_path / "0.json").flop_reduction
    assert (reduction.published_convention, reduction.exact_count) == (1, 1)


def test_prepared_data_needs_no_data_libraries(prepared: Prepared, tmp_path: Path) -> None:
    """Training runs where `datasets`, nltk, gensim and Snakemake cannot be imported; nor does it wait for torch's
    compiler, which takes as long to import as torch.
    """
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(small_config(max_steps=2).model_dump(mode="json")))
    program = f"""
import sys
for name in ("datasets", "nltk", "gensim", "snakemake", "torch._dynamo"):
    sys.modules[name] = None
from skimrnn.cli import app
app(["train", "--config", {str(tmp_path / "config.yaml")!r}, "--dataset", "sst", "--model", "skim", "--seed", "0",
     "--prepared", {str(prepared.folder)!r}, "--output", {str(tmp_path / "run")!r}])
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_skim_lstm_skims_fillers_and_reads_cues(prepared: Prepared, tmp_path: Path) -> None:
    """On the embedded corpus: at the LSTM's accuracy, fillers are skimmed at least twice as often as cue words."""
    config = small_config(max_steps=800, validate_every=200)
    models = {
        "lstm": config.models["lstm"].model_copy(update={"hidden_size": 100}),
        "skim": config.models["skim"].model_copy(update={"hidden_size": 100, "small_size": 5, "gamma": 0.01}),
    }
    config = config.model_copy(update={"models": models})
    test = prepared.split("test")
    trained, accuracy = {}, {}
    # Those of the last step: the best of many equally accurate validations skims as it happens, by the CPU's rounding.
    for name in models:
        train(config.run("sst", name, 0), prepared, tmp_path / name, Silent(), until=800)
        trained[name] = build_classifier(models[name], prepared.vectors(), 2).eval()
        trained[name].load_state_dict(read_tensors(tmp_path / name / "step-800.safetensors")[0])
        accuracy[name] = evaluate(trained[name], test).accuracy
    # Both are near 99 %. The skim model skims 88 % of fillers and 3 % of cues with AVX2, with AVX-512 55 and 1 %.
    assert accuracy["lstm"] > 0.95
    assert accuracy["skim"] > accuracy["lstm"] - 0.02

    cues = set().union(*lexicon(DATASETS["sst"]).cues)
    is_cue = torch.tensor([word in cues for word in read_json(prepared.folder / "vocabulary.json")])
    skimmed, total = {True: 0, False: 0}, {True: 0, False: 0}
    for batch in evaluation_batches(test, 128):
        decisions = trained["skim"](batch.tokens, batch.lengths).decisions
        real = torch.arange(decisions.read.shape[1])[:, None] < batch.lengths
        for kind, mask in ((True, is_cue[batch.tokens.t()]), (False, ~is_cue[batch.tokens.t()])):
            total[kind] += int((mask & real).sum())
            skimmed[kind] += int((mask & real & ~decisions.read[0]).sum())
    assert skimmed[False] / total[False] > 2 * skimmed[True] / total[True]
    assert skimmed[False] / total[False] > 0.2
