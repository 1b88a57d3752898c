"""Arrows of import point down only, and a client's start stays cheap: both by looking, not by agreement."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "pageantry"

# From the bottom up. A part imports from itself and from parts that stand before it.
ORDER = [
    "winpipe", "acl", "errors", "_version", "wire", "constraints", "keys", "agent", "messages", "extensions",
    "requests", "client", "console", "terminal", "askpass", "_dialogs", "dialogs", "prompts", "keyfiles", "wsl",
    "endpoints", "hardening", "forwarding", "securitykeys", "keyring", "framing", "sessions", "joining",
    "threads", "upstreams", "mux", "rules", "guard", "telling", "bridging", "lane", "server", "exposure",
    "for_paramiko", "sshconfig", "known", "probing", "discovery", "streams", "aio", "vault", "_dpapi", "remembered",
    "cli", "__init__", "__main__",
]  # fmt: skip
HEAVY = "asyncio base64 click cryptography dataclasses hashlib json logging pathlib re subprocess tempfile typing"


def imported_parts(path: Path) -> Iterator[str]:
    """The parts of pageantry that a file imports, anywhere in it."""
    here = ("pageantry", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "pageantry" and rest:
                part = rest.split(".")[0]
                yield "_version" if part == "__version__" else part


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_of_import_point_down(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert part in ORDER, f"give {part} its place in ORDER"
    allowed = ORDER[: ORDER.index(part) + 1]
    assert [name for name in imported_parts(path) if name not in allowed] == []


def loads(module: str, unwanted: str) -> list[str]:
    """Which of the unwanted modules an interpreter without site packages has loaded after importing this one."""
    code = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1]); __import__(sys.argv[2]); "
        "print(*(set(sys.modules) - before) & set(sys.argv[3].split()))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(PACKAGE.parent), module, unwanted]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.split()


@pytest.mark.parametrize("module", ["pageantry", "pageantry.client", "pageantry.discovery", "pageantry.winpipe"])
def test_a_client_starts_without_heavy_modules(module: str) -> None:
    assert loads(module, HEAVY) == []


@pytest.mark.parametrize(
    "module",
    [
        "wire",
        "constraints",
        "messages",
        "keys.public",
        "keys.private",
        "agent",
        "extensions",
        "requests",
        "forwarding",
        "vault.derive",
    ],
)
def test_the_core_does_no_io(module: str) -> None:
    assert loads(f"pageantry.{module}", f"{HEAVY} socket select selectors ssl") == []


def test_an_unwanted_import_is_seen() -> None:
    assert loads("asyncio", "asyncio socket") != []
