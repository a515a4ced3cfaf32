"""Reads a spec from YAML or JSON, and sends the local files that it names. Knows no field but those of files."""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from plait.errors import LocalFileError

#: Where the create body names files.
FILE_FIELDS = (("training_file",), ("validation_file",), ("multimodal", "test_file"))


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 2e-5 for text; here it is a number, as in YAML 1.2 and JSON."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z"), list("-+.0123456789")
)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; `-` is stdin."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LocalFileError(f"{path} cannot be read: {error}.") from None
    body = value(text, str(path))
    if not isinstance(body, dict):
        raise LocalFileError(
            f"{path} does not hold a mapping.", hint="Write it as `model: late-fusion`, one field a line."
        )
    return body


def value(text: str, where: str) -> Any:
    """YAML as the plain values of JSON: dates are text, keys are text."""
    try:
        return json.loads(json.dumps(yaml.load(text, _Loader), default=str, allow_nan=False))
    except yaml.MarkedYAMLError as error:
        # Its own text has several lines and draws an arrow.
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise LocalFileError(f"{where} is not valid YAML: {place}{error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise LocalFileError(f"{where} is not valid YAML: {error}") from None


def override(body: dict[str, Any], assignments: Sequence[str]) -> None:
    """Lays `key.path=value` over the spec."""
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        *parents, last = path.split(".")
        if not equals or not all((*parents, last)):
            raise LocalFileError(f"--set {assignment}: write it as key.path=value.")
        place = body
        for key in parents:
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        place[last] = value(text, f"--set {path}")


def send_files(body: dict[str, Any], folders: Sequence[Path], push: Callable[[Path], str]) -> None:
    """Replaces local paths by the ids of the files that `push` sends; each path is sent once."""
    sent: dict[Path, str] = {}
    for *parents, last in FILE_FIELDS:
        place: Any = body
        for key in parents:
            place = place.get(key) if isinstance(place, Mapping) else None
        named = place.get(last) if isinstance(place, dict) else None
        if not isinstance(named, str) or (path := _local(named, ".".join((*parents, last)), folders)) is None:
            continue
        if path not in sent:
            sent[path] = push(path)
        place[last] = sent[path]


def _local(named: str, field: str, folders: Sequence[Path]) -> Path | None:
    """The file or folder that is meant, or None for an id of the server's."""
    if not named:
        return None
    for folder in folders:
        if (path := folder / Path(named).expanduser()).exists():
            return path.resolve()
    if named.startswith("file-"):
        return None
    looked = " and ".join(dict.fromkeys(str(folder.resolve()) for folder in folders))
    raise LocalFileError(
        f"{field}: {named!r} is neither the id of an uploaded file (file-…) nor a file or folder in {looked}.",
        hint="See the uploaded ones with `plait files list`.",
    )
