"""Runs the demo and keeps what its terminal showed as docs/demo.svg, for the README."""

import re
import sys
from pathlib import Path

import run
from rich.console import Console

PICTURE = Path(__file__).parents[1] / "docs" / "demo.svg"
#: Fonts that a viewer would fetch from elsewhere.
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main() -> int:
    run.console = Console(record=True, width=100)
    code = run.main()
    PICTURE.write_text(_FONTS.sub("", run.console.export_svg(title="make demo")))
    return code


if __name__ == "__main__":
    sys.exit(main())
