"""Runs the demo and keeps what its terminal showed as docs/demo.svg, for the README."""

import sys
from pathlib import Path

import run
from rich.console import Console

PICTURE = Path(__file__).parents[1] / "docs" / "demo.svg"


def main() -> int:
    run.console = Console(record=True, width=100)
    code = run.main()
    run.console.save_svg(str(PICTURE), title="make demo")
    return code


if __name__ == "__main__":
    sys.exit(main())
