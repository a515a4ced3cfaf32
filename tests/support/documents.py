"""Documents as programs: their fenced blocks, in order, as one shell session; and what they say it prints."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.stack import ROOT

DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "client" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "@@ block at line "
#: What differs from run to run, and what stands for it in a comparison.
_CHANGING = (
    (re.compile(r"ft:[\w:.\-]+"), "<model>"),
    (re.compile(r"\b([a-z]+[-_])([a-z2-7]{24}(-\d+)?|…)"), r"<\1>"),
    (re.compile(r"[-+]?\d+(\.\d+)?(e-?\d+)?"), "<n>"),
    (re.compile(r"[─━╺╸]+"), "─"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its word, the line it begins on, its text."""

    word: str
    line: int
    text: str


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    return [Block(m[1], text.count("\n", 0, m.start()) + 1, m[2]) for m in _FENCE.finditer(text)]


def commands(block: Block) -> list[str]:
    """The lines of a block without their comments."""
    return [line.split("  #")[0].strip() for line in block.text.splitlines()]


def session(document: Path, without: Mapping[str, str]) -> str:
    """The document as one bash script; lines that are keys of `without` are left out. Empty if none is left."""
    parts = [_part(block, without) for block in blocks(document) if block.word in ("sh", "python")]
    return "\n".join(part for part in parts if part)


def _part(block: Block, without: Mapping[str, str]) -> str:
    lines = block.text.splitlines()
    if block.word == "sh":
        lines = [line for line, command in zip(lines, commands(block), strict=True) if command not in without]
        lines = lines if any(line.strip() and not line.startswith("#") for line in lines) else []
    elif lines:
        lines = [f"{sys.executable} - <<'END_OF_PYTHON'", *lines, "END_OF_PYTHON"]
    return "\n".join([f"printf '\\n{_MARK}{block.line}\\n'", *lines]) if lines else ""


def scratch(folder: Path, data: Path) -> Path:
    """A folder that looks like a checkout in which Plait is installed and up in `data`."""
    folder.mkdir()
    for entry in ROOT.iterdir():
        if not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".plait").symlink_to(data)
    return folder


def run(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs a session as a newcomer's shell would: nothing of ours is on its PATH or in its environment."""
    own = Path(sys.prefix) / "bin"
    path = [entry for entry in os.environ["PATH"].split(":") if Path(entry).resolve() != own.resolve()]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PLAIT_")}
    environment = kept | {"PATH": ":".join(path), "OMP_NUM_THREADS": "1", "COLUMNS": "110"}
    (folder / "session.sh").write_text(script)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "session.sh"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def outputs(told: str) -> dict[int, str]:
    """What each block printed, by the line that it begins on."""
    parts = re.split(rf"^{_MARK}(\d+)\n", told, flags=re.MULTILINE)[1:]
    return {int(line): text for line, text in zip(parts[::2], parts[1::2], strict=True)}


def untrue(document: Path, printed: Mapping[int, str]) -> list[str]:
    """What the document shows as output of the block before it, and that block did not print.

    `text` blocks must be lines of the output, in order; a `json` block must be part of an answer. Ids and numbers
    may be others.
    """
    wrong = []
    shown = blocks(document)
    for before, block in pairwise(shown):
        if before.line in printed and block.word in ("text", "json"):
            compare = _lines_missing if block.word == "text" else _fields_missing
            wrong += [
                f"{document.name}:{block.line}: {what}" for what in compare(block.text, printed[before.line])
            ]
    return wrong


def same(text: str) -> str:
    """`text` with all that changes from run to run replaced."""
    for pattern, word in _CHANGING:
        text = pattern.sub(word, text)
    return text.strip()


def _lines_missing(shown: str, printed: str) -> list[str]:
    told = iter([same(line) for line in printed.splitlines()])
    wanted = [line for line in shown.splitlines() if line.strip() not in ("", "…")]
    missing = next((line for line in wanted if same(line) not in told), None)
    return [f"not printed, or not in this order: {missing!r}; printed was:\n{printed}"] if missing else []


def _fields_missing(shown: str, printed: str) -> list[str]:
    answers = [json.loads(line) for line in printed.splitlines() if line.startswith(("{", "["))]
    wanted = json.loads(shown)
    return (
        []
        if any(_holds(a, wanted) for a in answers)
        else [f"no answer holds {shown}; printed was:\n{printed}"]
    )


def _holds(answer: Any, wanted: Any) -> bool:
    """Whether `answer` has all that is `wanted`; it may have more fields and more items."""
    if isinstance(wanted, dict):
        return isinstance(answer, dict) and all(
            k in answer and _holds(answer[k], v) for k, v in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(answer, list)
            and len(answer) >= len(wanted)
            and all(_holds(a, w) for a, w in zip(answer, wanted, strict=False))
        )
    if isinstance(wanted, str):
        return isinstance(answer, str) and same(answer) == same(wanted)
    if isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
        return isinstance(answer, (int, float)) and not isinstance(answer, bool)
    return bool(answer == wanted)
