import subprocess
from functools import cache
from pathlib import Path

import pytest
import torch

from skimrnn import kernels, provenance


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a repository of its own, taken for ours."""
    package = tmp_path / "repository" / "skimrnn"
    package.mkdir(parents=True)
    (package / "module.py").write_text("old")
    (package.parent / "notes.txt").write_text("old")
    git(package.parent, "init", "--quiet")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "--quiet", "-m", "All")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    monkeypatch.setattr(provenance, "_git_state", provenance._git_state.__wrapped__)
    return package


def test_the_commit_is_known_and_the_tree_is_clean(package: Path):
    assert provenance._git_state() == (git(package, "rev-parse", "HEAD"), False)


def test_a_change_of_the_code_is_seen_and_one_elsewhere_is_not(package: Path):
    (package.parent / "notes.txt").write_text("new")
    assert provenance._git_state()[1] is False
    (package / "module.py").write_text("new")
    assert provenance._git_state()[1] is True


def test_the_commit_is_that_of_the_start(package: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provenance, "_git_state", cache(provenance._git_state))
    monkeypatch.setattr(provenance, "TRAINING_CODE", ("module.py",))
    head = git(package, "rev-parse", "HEAD")
    assert provenance.environment().git_commit == head
    (package / "module.py").write_text("new")
    git(package, "commit", "--quiet", "--all", "-m", "Another")
    assert provenance.environment().git_commit == head


def test_a_gpu_is_named_where_it_computed_and_only_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device}")
    assert provenance.environment(torch.device("cuda", 1)).gpu == "a GPU, cuda:1"
    assert provenance.environment(torch.device("cpu")).gpu is None
    assert provenance.environment().gpu is None


def test_another_repository_around_the_package_is_not_ours(package: Path, monkeypatch: pytest.MonkeyPatch):
    inner = package / "site-packages" / "skimrnn"
    inner.mkdir(parents=True)
    monkeypatch.setattr(provenance, "PACKAGE", inner)
    assert provenance._git_state() == (None, None)


@pytest.mark.parametrize("suffix", ["", "-dirty"])
def test_an_image_names_its_commit_where_there_is_no_checkout(
    package: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
):
    head = git(package, "rev-parse", "HEAD")
    if suffix:
        (package / "module.py").write_text("new")
    # As the README builds the image.
    described = git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    assert described == head + suffix
    monkeypatch.setenv("SKIMRNN_COMMIT", described)
    installed = tmp_path / "site-packages" / "skimrnn"
    installed.mkdir(parents=True)
    monkeypatch.setattr(provenance, "PACKAGE", installed)
    assert provenance._git_state() == (head, bool(suffix))
    monkeypatch.setenv("SKIMRNN_COMMIT", "")
    assert provenance._git_state() == (None, None)


def test_a_checkout_is_believed_before_the_image(package: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SKIMRNN_COMMIT", "0" * 40)
    assert provenance._git_state() == (git(package, "rev-parse", "HEAD"), False)


def test_the_kernel_and_its_instruction_set_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "KERNEL", "reference")
    assert provenance.environment().kernel == "reference"
    if "plain" in getattr(getattr(kernels, "cpu", None), "SUPPORTED_ISAS", []):
        monkeypatch.setattr(kernels, "KERNEL", "cpu")
        monkeypatch.setenv("SKIMRNN_ISA", "plain")
        assert provenance.environment().kernel == "cpu plain"


def test_the_digest_of_code_is_that_of_its_sources(package: Path):
    (package / "part").mkdir()
    (package / "part" / "module.py").write_text("1")
    digest = provenance.code_digest.__wrapped__
    before = digest("part")
    for name in (".module.py.swp", "module.py~", "_cpu.so", ".checkpoints/module.py", "__pycache__/module.pyc"):
        (place := package / "part" / name).parent.mkdir(exist_ok=True)
        place.write_text("2")
        assert digest("part") == before, name
    (package / "part" / "template.j2").write_text("3")
    assert digest("part") != before
