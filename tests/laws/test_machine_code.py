"""Machine code from the cache is that of its own function, whoever compiled it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPUTE = """
import sys, pandas as pd, penstock as ps
from tests.laws import test_features_on_frames as staged
for name in sys.argv[1:]:
    paid = {staged.Deposit: staged.paid(account=["a"] * 50), staged.Login: pd.DataFrame()}
    print(ps.compute(getattr(staged, name), paid, at=staged.Deposit).to_json())
"""


@pytest.mark.slow
def test_two_kernels_that_two_processes_compiled_work_in_a_third(tmp_path: Path) -> None:
    """One without sketches, one with: numba names symbols by function and a number that counts in each process."""

    def said(*views: str) -> str:
        environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        environment.pop("NUMBA_CACHE_DIR", None)
        command = [sys.executable, "-c", COMPUTE, *views]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout

    apart = said("Account") + said("Habits")
    assert said("Account", "Habits") == apart


def test_a_service_loads_no_linear_algebra_for_its_loops_and_takes_none_from_others() -> None:
    said = (
        "import sys; from penstock.windows.machine_code import without_blas; without_blas(); "
        "assert 'numba' in sys.modules; assert 'scipy.linalg' not in sys.modules; "
        "import scipy.linalg.cython_blas"
    )
    subprocess.run([sys.executable, "-c", said], check=True, timeout=120)
