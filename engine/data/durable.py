"""Files that are whole or absent, also after a power cut."""

import os
import uuid
from contextlib import suppress
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """`path` holds all of `data` or does not exist, also after a power cut."""
    draft = path.with_name(f".{uuid.uuid4().hex}.draft")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError:
        # Half a file on a full disk would keep it full.
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the folder's list of names durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
