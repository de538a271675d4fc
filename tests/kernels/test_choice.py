"""Which kernel a device's layers run on, as the records say."""

from types import SimpleNamespace

import pytest
import torch

from skimrnn import kernels


@pytest.mark.parametrize(("interpreted", "named"), [(True, "triton"), (False, "reference")])
def test_triton_runs_on_the_cpu_by_its_interpreter_alone(interpreted: bool, named: str, monkeypatch):
    monkeypatch.setattr(kernels, "KERNEL", "triton")
    monkeypatch.setattr(kernels, "_gpu", SimpleNamespace(INTERPRETED=interpreted))
    assert kernels.kernel_text(torch.device("cpu")) == named
    assert kernels.kernel_text(torch.device("cuda")) == "triton"
