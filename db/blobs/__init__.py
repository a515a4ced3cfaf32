"""Bytes of files. The rows are in `db.files`; which store keeps the bytes, the settings say."""

from db.blobs.copies import Copies
from db.blobs.folder import FolderBlobs
from db.blobs.store import Blobs, Stored, part_key
from settings import Settings

__all__ = ["Blobs", "Stored", "open_blobs", "part_key"]

#: What `PLAIT_S3_PUBLIC_ENDPOINT_URL` says where clients cannot reach the store.
_NO_LINKS = "none"


def open_blobs(settings: Settings) -> Blobs:
    """The store of this installation."""
    data = settings.data.absolute()
    if not settings.s3_bucket:
        return FolderBlobs(data / "blobs")
    # boto3 takes a second and 30 MB: only who has a bucket pays for it.
    from db.blobs.requests import Place
    from db.blobs.s3 import S3Blobs

    place = Place(
        bucket=settings.s3_bucket,
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
    )
    public = settings.s3_public_endpoint_url
    return S3Blobs(
        place,
        prefix=settings.s3_prefix,
        spool=data / "spool",
        copies=Copies(data / "cache" / "blobs", settings.cache_bytes),
        public_url=None if public == _NO_LINKS else public,
    )
