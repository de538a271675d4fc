"""What stands in for the clock, where it is to be seen what is timed."""

from collections.abc import Callable, Mapping

import pytest

from skimrnn.benchmarks import reader_speed, speedup
from skimrnn.benchmarks.timing import Timing, summarise


class Once:
    """In place of `time_together`: each function is called once, and its time is like no other's."""

    def __init__(self) -> None:
        self.results: dict[str, object] = {}
        self.timings: dict[str, Timing] = {}

    def __call__(self, functions: Mapping[str, Callable[[], object]], rounds: int, warm_up: int) -> dict[str, Timing]:
        self.results = {name: function() for name, function in functions.items()}
        self.timings = {name: summarise([float(place)]) for place, name in enumerate(functions)}
        return self.timings


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> Once:
    once = Once()
    for module in (speedup, reader_speed):
        monkeypatch.setattr(module, "time_together", once)
    return once
