"""Folders that are classes: `cats/1.jpg` is a cat. Reads names only.

The layout of torchvision's ImageFolder and of Hugging Face's `imagefolder`, whose folders may lie in `train/`
and `test/`: https://huggingface.co/docs/datasets/image_dataset.
"""

from collections.abc import Iterator, Sequence
from os.path import commonpath
from pathlib import PurePosixPath

from domain.manifest import Code, Issue, split_name
from engine.data.infer import media_type
from engine.data.raw_rows import RawRow
from engine.data.tables import Table, excerpt

#: What systems leave behind in folders.
_LITTER = frozenset({"thumbs.db", "desktop.ini"})
_SHOWN = 5


def read_class_folders(names: Sequence[str], label: str) -> Table | None:
    """A row for each media file, in the order of names; None unless two folders hold some.

    `names` are paths with `/`. A row's line is its place, its id its path.
    """
    kept = sorted(name for name in names if not is_litter(name))
    files = [name for name in kept if media_type(name)]
    folders = [name.split("/")[:-1] for name in files]
    if len({path[-1] for path in folders if path}) < 2:
        return None
    outer = len(PurePosixPath(commonpath(map("/".join, folders))).parts)
    has_splits = all(len(path) > outer + 1 and split_name(path[outer]) for path in folders)
    table = Table(issues=list(_unused(sorted(set(kept) - set(files)))))
    for line, (name, path) in enumerate(zip(files, folders, strict=True), start=1):
        cells = {"id": name, "file_name": name, label: path[-1] if path else None}
        table.rows.append(RawRow(line, {**cells, "split": path[outer]} if has_splits else cells))
    table.rows.seal()
    return table


def is_litter(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return hidden or parts[-1].lower() in _LITTER


def _unused(names: Sequence[str]) -> Iterator[Issue]:
    if names:
        shown = ", ".join(map(excerpt, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
        message = f"{len(names)} files are no pictures or sounds by their names, and not used: {shown}."
        yield Issue(Code.UNSUPPORTED_FORMAT, message, severity="warning")
