"""The Triton kernels through Triton's compiler, which needs no GPU: its interpreter takes what the compiler may not."""

import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from skimrnn.kernels import gpu

HIDDEN, SMALL = 100, 10
ROW = 448  # 440 gates, two logits, and up to a whole line of the cache


def compiled(kernel: triton.JITFunction, units: int, capability: int, **constants: int) -> dict[str, str | bytes]:
    """The code of a kernel for d = 100 and d' = 10 on GPUs of a compute capability."""
    if kernel is gpu._backward_kernel:
        constants |= {"USED": 442 if constants["SKIMS"] else 400, "LINE": 32}
    sizes = gpu._sizes(HIDDEN, SMALL, ROW, units)
    options = {name: sizes.pop(name) for name in ("num_warps", "num_stages", "maxnreg")}
    types = dict.fromkeys((*gpu._COUNTS, "given"), "i32") | {
        "limit": "fp32",
        "taken": "*i32",
        "lengths": "*i64",
        "read": "*i1",
    }
    constants = sizes | {"TOGETHER": False, "INTERPRETED": False} | constants
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in kernel.arg_names}
    aligned = [p.num for p in kernel.params if signature[p.name][0] == "*" and not p.do_not_specialize_on_alignment]
    source = ASTSource(kernel, signature, constants, {(place,): [["tt.divisibility", 16]] for place in aligned})
    return triton.compile(source, GPUTarget("cuda", capability, 32), options).asm


@pytest.mark.parametrize(
    ("backwards", "variant", "barriers"),
    [
        (False, {"SKIMS": True, "RELAXED": False, "KEEPS": False}, 2),
        (False, {"SKIMS": True, "RELAXED": False, "KEEPS": True}, 2),
        (False, {"SKIMS": False, "RELAXED": False, "KEEPS": True}, 1),
        (True, {"SKIMS": True, "RELAXED": False}, 1),
        (True, {"SKIMS": False, "RELAXED": False}, 1),
    ],
)
def test_threads_wait_for_each_other(
    backwards: bool, variant: dict[str, bool], barriers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever one reads what another has written, which the interpreter, a thread at a time, cannot show."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    kernel, units = (gpu._backward_kernel, HIDDEN) if backwards else (gpu._forward_kernel, ROW // 4)
    assert compiled(kernel, units, 90, **variant)["ptx"].count("bar.sync") == barriers


@pytest.mark.parametrize(("kernel", "units"), [(gpu._forward_kernel, ROW // 4), (gpu._backward_kernel, HIDDEN)])
def test_programs_of_several_models_ask_for_their_sm(
    kernel: triton.JITFunction, units: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the interpreter, without SMs, does not: one of its threads, for all of them."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    keeps = {"KEEPS": True} if kernel is gpu._forward_kernel else {}
    alone, together = (
        str(compiled(kernel, units, 90, SKIMS=True, RELAXED=True, TOGETHER=many, **keeps)["ptx"])
        for many in (False, True)
    )
    assert "%smid" not in alone and "atom" not in alone
    before, after = together.split("%smid")
    assert "atom" not in before and after.index("redux.sync.max") < after.index("bar.sync") < after.index("atom.global")


@pytest.mark.parametrize("capability", [80, 90])
def test_a_thread_sums_up_a_unit_alone(capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sum goes from thread to thread, but the one of the gradient of the share; nor do registers run out.

    One or two of what is not needed until the loop has ended may wait on the stack.
    """
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    variant = {"SKIMS": True, "RELAXED": True}
    forward = compiled(gpu._forward_kernel, ROW // 4, capability, KEEPS=True, **variant)
    backward = compiled(gpu._backward_kernel, HIDDEN, capability, **variant)
    assert (forward["ptx"].count("shfl.sync"), forward["ptx"].count("bar.sync")) == (0, 2)
    assert 0 < backward["ptx"].count("shfl.sync") < 10
    assert backward["ptx"].count("bar.sync") == 3
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    for kernel in (forward, backward):
        (binary := tmp_path / "kernel.cubin").write_bytes(kernel["cubin"])
        used = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
        assert re.search(r"REG:\d+ STACK:[08] ", used), used
