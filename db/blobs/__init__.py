"""Bytes of files. The rows are in `db.files`; which store keeps the bytes, the settings say."""

from db.blobs.folder import FolderBlobs
from db.blobs.store import Blobs, Stored, part_key
from settings import Settings

__all__ = ["Blobs", "Stored", "open_blobs", "part_key"]


def open_blobs(settings: Settings) -> Blobs:
    """The store of this installation."""
    return FolderBlobs(settings.data.absolute() / "blobs")
