"""What the benchmarks have in common: figures, their bars, and how both are shown."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict, dataclass


@dataclass
class Result:
    """One figure, and how it stands to its bar."""

    subject: str
    candidate: str
    value: float
    unit: str
    ratio: str = ""
    bar: str = ""
    met: bool | None = None


def show(results: list[Result]) -> None:
    """Print a table."""
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    subject = ""
    for result in results:
        if result.subject != subject:
            subject = result.subject
            print(f"{subject}\n" + "-" * 82)
        met = "" if result.met is None else "met" if result.met else "MISSED"
        figure = f"{result.value:,.1f}" if result.value < 1000 else f"{result.value:,.0f}"
        print(
            f"  {result.candidate:<26} {figure:>8} {result.unit:<11} {result.ratio:<15} {result.bar:<10} {met}".rstrip()
        )


def parser(description: str) -> argparse.ArgumentParser:
    """What reads `json` and `quick` from the command line."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    made.add_argument("--quick", action="store_true", help="few rounds: shows that it runs, the figures are noise")
    return made


def options(description: str) -> argparse.Namespace:
    """`json` and `quick`, from the command line."""
    return parser(description).parse_args()


def give(results: list[Result], as_json: bool) -> None:
    """Print JSON, or a table."""
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        show(results)
