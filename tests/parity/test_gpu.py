"""The Triton kernels against the float64 reference: on a GPU where there is one, else by Triton's interpreter."""

from pathlib import Path

from tests.triton_process import run_under_triton


def test_the_checks_in_a_process_of_their_own() -> None:
    assert " passed" in run_under_triton(Path(__file__).with_name("gpu_checks.py"))
