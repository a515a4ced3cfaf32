"""Folders that are classes: `cats/1.jpg` is a cat. Reads names only.

The layout of torchvision's ImageFolder and of Hugging Face's `imagefolder`, whose folders may lie in `train/`
and `test/`: https://huggingface.co/docs/datasets/image_dataset.
"""

from collections.abc import Iterator, Sequence
from os.path import commonpath
from pathlib import PurePosixPath

from domain.manifest import Code, Issue, split_name
from engine.data.infer import media_type
from engine.data.issues import Issues
from engine.data.raw_rows import RawRow
from engine.data.tables import BadLine, Table, excerpt, refuse_characters

#: What systems leave behind in folders.
_LITTER = frozenset({"thumbs.db", "desktop.ini"})
_SHOWN = 5
#: Keys that a row of class folders has of its own.
_OWN = ("id", "file_name", "split")


def read_class_folders(names: Sequence[str], label: str) -> Table | None:
    """A row for each media file, in the order of names; None unless two folders hold some.

    `names` are paths with `/`. A row's line is its place, its id its path.
    """
    kept = sorted(name for name in names if not is_litter(name))
    files = [name for name in kept if media_type(name)]
    folders = [name.split("/")[:-1] for name in files]
    classes = {path[-1] for path in folders if path}
    if len(classes) < 2 or all(map(split_name, classes)):
        return None
    table = Table(issues=Issues(_unused(sorted(set(kept) - set(files)))))
    if label in _OWN:
        message = f"Of class folders the label cannot be named '{label}'; name it 'label' in the schema."
        table.issues.append(Issue(Code.SCHEMA_MISMATCH, message, param="schema.label"))
    outer = len(PurePosixPath(commonpath(map("/".join, folders))).parts)
    has_splits = _has_splits([path[outer:] for path in folders])
    for line, (name, path) in enumerate(zip(files, folders, strict=True), start=1):
        cells = {"id": name, "file_name": name, **_told(path, path[outer:], label, has_splits)}
        try:
            refuse_characters(cells)
            table.rows.append(RawRow(line, cells))
        except BadLine as bad:
            table.issues.append(Issue(bad.code, bad.message, line, bad.column, excerpt(name)))
    table.rows.seal()
    return table


def _has_splits(folders: Sequence[Sequence[str]]) -> bool:
    """Whether all classes lie in train, test and the like; a file that lies elsewhere changes nothing."""
    deep = [path for path in folders if len(path) > 1]
    return bool(deep) and all(split_name(path[0]) for path in deep)


def _told(path: Sequence[str], inner: Sequence[str], label: str, has_splits: bool) -> dict[str, str | None]:
    """What a file's folders say: its class, and its split if there are any."""
    is_split = has_splits and bool(inner) and split_name(inner[0]) is not None
    kind = None if not path or (is_split and len(inner) == 1) else path[-1]
    return {label: kind, "split": inner[0]} if is_split else {label: kind}


def is_litter(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return hidden or parts[-1].lower() in _LITTER


def _unused(names: Sequence[str]) -> Iterator[Issue]:
    if names:
        shown = ", ".join(map(excerpt, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
        message = f"{len(names)} files are no pictures or sounds by their names, and not used: {shown}."
        yield Issue(Code.UNSUPPORTED_FORMAT, message, severity="warning")
