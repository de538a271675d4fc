"""`python -m skimrnn.fleet`: the fleet where the command line's libraries are missing; else `python -m skimrnn fleet`.

It needs torch, numpy, pandas, pyarrow, pydantic and safetensors alone. Without PyYAML the config is JSON, which
`python -m skimrnn config` writes.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from skimrnn.allocator import take_memory_in_large_blocks
from skimrnn.counts import count_of
from skimrnn.errors import UserError, interrupt_on_termination, machine_failure


def main(arguments: Sequence[str] | None = None, name: str = "python -m skimrnn.fleet") -> None:
    """Train the runs of a config that have no record yet, and write their records."""
    parser = argparse.ArgumentParser(prog=name, description=main.__doc__)
    parser.add_argument("--config", type=Path, required=True, help="config of the scale, YAML or JSON")
    parser.add_argument("--dataset", action="append", default=[], help="this dataset alone (may be given again)")
    parser.add_argument("--model", action="append", default=[], help="this model alone (may be given again)")
    parser.add_argument("--seed", action="append", default=[], type=int, help="this seed alone (may be given again)")
    parser.add_argument("--minutes", type=_minutes, default=math.inf, help="time budget; start it again to go on")
    parser.add_argument("--jobs", type=_positive, default=1, help="processes side by side for runs that train alone")
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu or cuda")
    parser.add_argument("--prepared", type=Path, help="folder of <dataset>/ (default: data/prepared/<scale>)")
    parser.add_argument("--tokens", type=Path, help="folder of <dataset>/ (default: data/tokens/<source>)")
    parser.add_argument("--runs", type=Path, help="folder of weights and checkpoints (default: runs/<scale>)")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the records (default: results)"
    )
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    try:
        _run(options, deadline)
    except UserError as error:
        sys.exit(_failed(error))
    except KeyboardInterrupt:
        print("interrupted: run the same command to go on", file=sys.stderr)
        sys.exit(130)
    except (MemoryError, OSError, RuntimeError) as error:
        if (failure := machine_failure(error)) is None:
            raise
        sys.exit(_failed(failure))


def _run(options: argparse.Namespace, deadline: float) -> None:
    from skimrnn.config import read_config
    from skimrnn.device import pick_device
    from skimrnn.fleet.fleet import Places, missing_runs, run_fleet

    config, device = read_config(options.config), pick_device(options.device)
    places = Places(
        options.prepared or Path("data/prepared") / config.scale,
        options.runs or Path("runs") / config.scale,
        options.results,
        options.tokens or Path("data/tokens") / config.data.source,
    )
    runs = missing_runs(config, places, options.dataset, options.model, options.seed)

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    report(f"{count_of(len(runs), 'run')} without a record, on {device.type}")
    outcome = run_fleet(config, runs, places, device, options.jobs, deadline, report)
    left = f", {outcome.left} left: run the same command to go on" if outcome.left else ""
    report(f"{outcome.recorded} recorded{left}")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"must be a number from 0, not {text!r}")
    return value


def _failed(error: object) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    take_memory_in_large_blocks()
    interrupt_on_termination()
    main()
