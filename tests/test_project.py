"""What surrounds the package: the files that installing and checking go by."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("argument", ["-h", "tests", "-k"])
def test_check_takes_no_arguments_of_its_own(argument: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "check.py", argument], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python3 check.py")
