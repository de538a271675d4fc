"""What this machine can do at best: arithmetic in registers, and reading an array that stays in a cache."""

import time
from collections.abc import Callable, Sequence

import torch

from skimrnn.files import Closed
from skimrnn.kernels import KERNEL

if KERNEL == "cpu":  # Else peaks can still be read.
    from skimrnn.kernels import _cpu, cpu

_TRIES = 7


class Peaks(Closed):
    """One thread's best over several tries."""

    flops: float  # a second, in float32
    bandwidth: dict[int, float]  # bytes a second, by the size of the array that is read again and again (bytes)


def measure_peaks(sizes: Sequence[int]) -> Peaks:
    """Measure with the instruction set in use, for arrays of `sizes` bytes."""
    rounds = 2_000_000
    flops = _cpu.multiply_add(cpu.isa(), 1) * rounds
    best = _best(lambda: _cpu.multiply_add(cpu.isa(), rounds))
    return Peaks(flops=flops / best, bandwidth={size: _bandwidth(size) for size in sizes})


def best_of(peaks: Sequence[Peaks]) -> Peaks:
    """The best of several measurements, each for itself."""
    bandwidth = {size: max(each.bandwidth[size] for each in peaks) for size in peaks[0].bandwidth}
    return Peaks(flops=max(each.flops for each in peaks), bandwidth=bandwidth)


def _bandwidth(size: int) -> float:
    array = torch.zeros(size // 4)
    rounds = max(1, 200_000_000 // size)
    return size * rounds / _best(lambda: _cpu.read_array(cpu.isa(), array.data_ptr(), len(array), rounds))


def _best(run: Callable[[], object]) -> float:
    times = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)
