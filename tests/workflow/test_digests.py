"""No rule forgets code: what its command imports is in its digest, or in that of a rule whose output it reads."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from skimrnn import provenance
from tests.conftest import ROOT

PACKAGE = ROOT / "skimrnn"
PLUMBING = {"__init__.py", "counts.py", "errors.py", "files.py", "config.py", "provenance.py", "data/stages.py"}
"""What no result depends on, or what the rules' other parameters hold (a run's settings)."""

UNUSED = {
    "fetch_dataset": {"data/offsets.py", "data/tokens.py", "data/treebank.py"},
    "measure_speed": {"measures/flops.py"},
    "measure_latency": {"data", "device.py", "measures", "training"},
    "report_latency": {"analysis", "data", "device.py", "layers", "kernels", "measures/squad.py", "models", "training"},
    "draw_figures": {"benchmarks/competitors.py", "benchmarks/timing.py"},  # Of speeds, which figures do not read.
}
"""What the command imports only because it takes something else from the same module."""

READS = {
    "fetch_dataset": [],
    "tokenise_dataset": ["fetch_dataset"],
    "make_vectors": ["tokenise_dataset"],
    "prepare_dataset": ["make_vectors"],
    "train_first_steps": ["prepare_dataset"],
    "train_model": ["train_first_steps"],
    "evaluate_model": ["train_model"],
    "measure_speed": ["train_model"],
    "analyse_model": ["evaluate_model"],
    "tabulate_results": ["analyse_model", "measure_speed"],
    "try_claims": ["analyse_model", "measure_speed"],
    "draw_figures": ["analyse_model"],
    "build_page": ["analyse_model", "measure_speed"],
    "measure_latency": [],
    "report_latency": ["measure_latency"],
}


def rules() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Of each rule the verb that it calls, and the parts of the package in its digest."""
    texts = [path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk"))]
    scope = {**vars(provenance), "code_digest": lambda *parts: parts}
    for text in texts:
        for name, digest in re.findall(r"^(\w+) = (code_digest\([^()]*\))", text, re.MULTILINE):
            scope[name] = eval(digest, scope)
    found = {}
    for block in (block for text in texts for block in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]):
        verb = re.search(r"python -m skimrnn ([\w-]+)", block)
        code = re.search(r"code=(code_digest\([^()]*\)|\w+),", block)
        assert verb and code, block
        found[block.split(":")[0]] = (verb[1], eval(code[1], scope))
    return found


def imported(tree: ast.AST) -> Iterator[Path]:
    """The modules of the package that some code imports, wherever it does."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "skimrnn":
            base = ROOT.joinpath(*(node.module or "").split("."))
            for name in node.names:
                places = (base / f"{name.name}.py", base / name.name / "__init__.py", base.with_suffix(".py"))
                yield next((place for place in places if place.exists()), base / "__init__.py")
        yield from imported(node)


def used_by(verb: str) -> set[str]:
    """The modules that a verb runs, directly or not."""
    command = ast.parse((PACKAGE / "cli.py").read_text())
    [function] = [n for n in command.body if isinstance(n, ast.FunctionDef) and n.name == verb.replace("-", "_")]
    used: set[Path] = set()
    waiting = set(imported(function))
    while waiting:
        module = waiting.pop()
        used.add(module)
        waiting |= set(imported(ast.parse(module.read_text()))) - used
    return {module.relative_to(PACKAGE).as_posix() for module in used}


def digested(rule: str) -> set[str]:
    """The parts of the package whose change makes a rule run again."""
    return set(rules()[rule][1]).union(*(digested(earlier) for earlier in READS[rule]))


def test_every_rule_is_known_here() -> None:
    assert set(rules()) == set(READS)


@pytest.mark.parametrize("rule", READS)
def test_a_rule_forgets_no_code(rule: str) -> None:
    used = used_by(rules()[rule][0]) - PLUMBING
    assert len(used) > 1
    parts = digested(rule) | UNUSED.get(rule, set())
    assert {module for module in used if not parts & {module, *map(str, Path(module).parents)}} == set()
