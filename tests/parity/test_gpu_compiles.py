"""The Triton kernels through Triton's compiler, which needs no GPU: its interpreter takes what the compiler may not."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from skimrnn.kernels import CellWeights, DecisionWeights, gpu

TYPES = {torch.float32: "*fp32", torch.int64: "*i64", torch.int32: "*i32", torch.bool: "*i1", int: "i32", float: "fp32"}
OPTIONS = ("num_warps", "num_stages", "maxnreg")
Arguments = dict[str, Any]


class Launches:
    """Stands where a kernel does, and keeps what it is called with."""

    def __init__(self, kernel: triton.JITFunction) -> None:
        self.kernel = kernel
        self.arguments: list[Arguments] = []

    def __getitem__(self, _: tuple[int, ...]) -> "Launches":
        return self

    def __call__(self, *arguments: Any, **named: Any) -> None:
        self.arguments.append(dict(zip(self.kernel.arg_names, arguments, strict=False)) | named)


def launches(
    monkeypatch: pytest.MonkeyPatch, skims: bool, relaxed: bool, keeps: bool, together: bool = False
) -> dict[str, Arguments]:
    """What both kernels are called with at d = 100 and d' = 10: forwards, and backwards where it `keeps` for that."""
    kept = {way: Launches(getattr(gpu, f"_{way}_kernel")) for way in ("forward", "backward")}

    def tensor(*shape: int) -> Tensor:
        return torch.zeros(*((2,) if together else ()), *shape, requires_grad=keeps)

    weights = [tensor(rows, *rest) for rows in (400, 40, 2) for rest in ((20,), (100,), (), ())]
    inputs, state = tensor(3, 4, 20), (tensor(4, 100), tensor(4, 100))
    lengths = torch.full((*inputs.shape[:-3], 4), 3)
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "_count_sms", lambda _: 132)
        for way, launch in kept.items():
            patch.setattr(gpu, f"_{way}_kernel", launch)
        if skims:
            cells = CellWeights(*weights[:4]), CellWeights(*weights[4:8]), DecisionWeights(*weights[8:])
            noise = tensor(3, 4, 2).detach() if relaxed else None
            outputs = gpu.skim_lstm(inputs, lengths, state, *cells, noise=noise).outputs
        else:
            outputs, _ = gpu.lstm(inputs, lengths, state, CellWeights(*weights[:4]))
        if keeps:
            outputs.sum().backward()
    return {way: launch.arguments[0] for way, launch in kept.items() if launch.arguments}


def compiled(way: str, arguments: Arguments, capability: int = 90) -> dict[str, str | bytes]:
    """The code of a kernel for such a call on GPUs of a compute capability."""
    kernel: triton.JITFunction = getattr(gpu, f"_{way}_kernel")
    options = {name: arguments[name] for name in OPTIONS}
    assert {*arguments} - {*OPTIONS} == {*kernel.arg_names}
    constants, signature, aligned = {}, {}, {}
    for parameter in kernel.params:
        value = arguments[parameter.name]
        if parameter.is_constexpr:
            constants[parameter.name], signature[parameter.name] = value, "constexpr"
            continue
        signature[parameter.name] = TYPES[value.dtype if isinstance(value, Tensor) else type(value)]
        if isinstance(value, Tensor) and value.data_ptr() % 16 == 0 and not parameter.do_not_specialize_on_alignment:
            aligned[(parameter.num,)] = [["tt.divisibility", 16]]
    return triton.compile(
        ASTSource(kernel, signature, constants, aligned), GPUTarget("cuda", capability, 32), options
    ).asm


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("skims", "relaxed", "keeps", "barriers"),
    [
        (True, False, False, {"forward": 2}),
        (True, False, True, {"forward": 2, "backward": 1}),
        (False, False, False, {"forward": 1}),
        (False, False, True, {"forward": 1, "backward": 1}),
    ],
)
def test_threads_wait_for_each_other(
    skims: bool, relaxed: bool, keeps: bool, barriers: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever one reads what another has written, which the interpreter, a thread at a time, cannot show."""
    calls = launches(monkeypatch, skims, relaxed, keeps)
    assert {way: compiled(way, call)["ptx"].count("bar.sync") for way, call in calls.items()} == barriers


@pytest.mark.parametrize("capability", [80, 90])
def test_a_thread_sums_up_a_unit_alone(capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sum goes from thread to thread, but the one of the gradient of the share; nor do registers run out.

    One or two of what is not needed until the loop has ended may wait on the stack.
    """
    calls = launches(monkeypatch, skims=True, relaxed=True, keeps=True)
    forward, backward = (compiled(way, calls[way], capability) for way in ("forward", "backward"))
    assert (forward["ptx"].count("shfl.sync"), forward["ptx"].count("bar.sync")) == (0, 2)
    assert 0 < backward["ptx"].count("shfl.sync") < 10
    assert backward["ptx"].count("bar.sync") == 3
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    for kernel in (forward, backward):
        (binary := tmp_path / "kernel.cubin").write_bytes(kernel["cubin"])
        used = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
        assert re.search(r"REG:\d+ STACK:[08] ", used), used


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_programs_of_several_models_ask_for_their_sm(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the interpreter, without SMs, does not: one of its threads, for all of them."""
    alone, together = (
        compiled(way, launches(monkeypatch, True, True, True, together=many)[way])["ptx"] for many in (False, True)
    )
    assert "%smid" not in alone and "atom" not in alone
    before, after = together.split("%smid")
    assert "atom" not in before and after.index("redux.sync.max") < after.index("bar.sync") < after.index("atom.global")
