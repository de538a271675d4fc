"""The command line, as a person runs it."""

import os
import subprocess
import sys
from pathlib import Path

from skimrnn.data.prepare import Prepared


def skimrnn(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "skimrnn", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


def error_of(process: subprocess.CompletedProcess[str]) -> str:
    """The one error line of a failed command."""
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), process.stderr
    return last


def train_command(config_file: Path, prepared: Prepared, output: Path, /, **changes: str) -> list[str]:
    """What trains a model on SST."""
    options = {"config": config_file, "dataset": "sst", "model": "lstm", "seed": 0, "prepared": prepared.folder}
    options |= {"output": output, **changes}
    return ["train", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
