import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder node_modules with the npm packages vault and storeroom: PAGEANTRY_NPM, or installed here by npm."""
    program = shutil.which("npm")
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if "PAGEANTRY_NPM" in os.environ:
        return Path(os.environ["PAGEANTRY_NPM"])
    if program is None:
        pytest.skip("npm is not installed, and PAGEANTRY_NPM names no node_modules with its package vault")
    folder = tmp_path_factory.mktemp("npm")
    # vault wants `when` from an address that is not there for everybody; the same version is published.
    wanted = {"dependencies": {"vault": "0.3.0", "storeroom": "0.1.0"}, "overrides": {"when": "1.3.0"}}
    (folder / "package.json").write_text(json.dumps({"private": True} | wanted))
    install = [program, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    if subprocess.run(install, cwd=folder, timeout=100, capture_output=True).returncode:
        pytest.skip("npm cannot install the package vault here")
    return folder / "node_modules"
