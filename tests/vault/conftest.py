import os
import shutil
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def npm() -> Path:
    """The folder node_modules with the npm packages vault and storeroom."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    folder = Path(os.environ.get("PAGEANTRY_NPM", "node_modules"))
    if not (folder / "vault").is_dir():
        pytest.skip("PAGEANTRY_NPM names no node_modules with the npm package vault")
    return folder


@pytest.fixture(scope="session")
def peers() -> Path:
    """The bin folder of an environment with derivepassphrase in it."""
    folder = Path(os.environ.get("PAGEANTRY_PEERS", Path(sys.executable).parent))
    if shutil.which("derivepassphrase", path=str(folder)) is None:
        pytest.skip("PAGEANTRY_PEERS names no environment with derivepassphrase, and this one has none")
    return folder
