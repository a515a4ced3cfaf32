"""The caches of several machines in one bucket: what `engine.data.shared.Shared` asks for, over the store of files.

Objects are `<prefix>cache/<name>`. A cache that is asked waits for nobody: one short try, and the engine goes on without.
"""

import errno
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import accumulate
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from db.blobs.requests import Place
from engine.data.shared import KEYS, SHARD

#: Seconds to connect, and of silence; one try.
CONNECT_S, SILENCE_S = 1.0, 5.0
#: What is larger is not sent: a film's frames are some megabytes.
MOST_BYTES = 256 * 2**20
#: An object that is read is written anew when it is older (seconds), by the store itself: so the oldest ones are those
#: that nobody read for days, whether `trim` drops them or a rule of the bucket's.
REFRESH_S = 24 * 3600.0
#: Room is made down to this share of the limit.
_DOWN_TO = 0.9
_ABSENT = ("404", "NoSuchKey")
#: Objects that one request deletes.
_AT_ONCE = 1000


class SharedCache:
    """Bytes by name in a bucket. Raises OSError when the store does not answer, or refuses. Any thread may ask."""

    def __init__(self, place: Place, prefix: str) -> None:
        self._client, self._bucket, self._prefix = place.client(), place.bucket, f"{prefix}cache/"

    def get(self, name: str) -> bytes | None:
        at = self._at(name)
        try:
            with _asking():
                found = self._client.get_object(**at)
                if found["ContentLength"] > MOST_BYTES:
                    return None
                data: bytes = found["Body"].read()
        except FileNotFoundError:
            return None
        if time.time() - found["LastModified"].timestamp() > REFRESH_S:
            self._refresh(name)
        return data

    def _refresh(self, name: str) -> None:
        """Writes it anew. Keys follow their shard: each job reads all keys, so by themselves they would never grow old."""
        if name.endswith(KEYS):
            return
        keys = [self._at(name.removesuffix(SHARD) + KEYS)] if name.endswith(SHARD) else []
        for at in [self._at(name), *keys]:
            # Whoever may read and not write, or comes too late, has read it all the same.
            with suppress(OSError), _asking():
                self._client.copy_object(**at, CopySource=at, MetadataDirective="REPLACE")

    def put(self, name: str, data: bytes) -> bool:
        if len(data) > MOST_BYTES:
            return False
        with _asking():
            self._client.put_object(**self._at(name), Body=data)
        return True

    def names(self, prefix: str) -> Iterator[str]:
        for found in self._objects(prefix):
            yield str(found["Key"]).removeprefix(self._prefix)

    def trim(self, limit: int) -> int:
        """Deletes what was not used for longest if there is more than `limit` bytes; says how many objects.

        A shard goes with its keys.
        """
        things = _things(self._objects(""))
        sizes = [sum(one["Size"] for one in thing) for thing in things]
        excess = sum(sizes) - limit
        if excess <= 0:
            return 0
        excess += int((1 - _DOWN_TO) * limit)
        behind = accumulate(sizes, initial=0)
        old = [thing for thing, before in zip(things, behind, strict=False) if before < excess]
        dropped = [{"Key": one["Key"]} for thing in old for one in thing]
        for start in range(0, len(dropped), _AT_ONCE):
            with _asking():
                some = {"Objects": dropped[start : start + _AT_ONCE], "Quiet": True}
                self._client.delete_objects(Bucket=self._bucket, Delete=some)
        return len(dropped)

    def _objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2")
        with _asking():
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                yield from page.get("Contents", [])

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}


def _things(objects: Iterator[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Each object, a shard together with its keys; first what was written first. A shard's age counts, not its keys'."""
    things: dict[str, list[dict[str, Any]]] = {}
    for one in objects:
        things.setdefault(one["Key"].removesuffix(KEYS).removesuffix(SHARD), []).append(one)
    for thing in things.values():
        # Keys first: without a shard they only cost requests.
        thing.sort(key=lambda one: not one["Key"].endswith(KEYS))
    return sorted(things.values(), key=lambda thing: thing[-1]["LastModified"])


def open_shared_cache(storage: Mapping[str, Any]) -> SharedCache | None:
    """What the settings say; None where machines share nothing."""
    if not storage["shared_cache"]:
        return None
    place = Place(
        bucket=storage["s3_bucket"],
        endpoint_url=storage["s3_endpoint_url"],
        region=storage["s3_region"],
        access_key=storage["s3_access_key"],
        secret_key=storage["s3_secret_key"],
        connect_s=CONNECT_S,
        silence_s=SILENCE_S,
        tries=1,
    )
    return SharedCache(place, storage["s3_prefix"])


@contextmanager
def _asking() -> Iterator[None]:
    """Turns what boto3 raises into an OSError."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _ABSENT:
            raise FileNotFoundError(errno.ENOENT, "no such object") from None
        raise OSError(errno.EIO, f"the object store refuses: {code}") from error
    except BotoCoreError as error:
        raise OSError(errno.ETIMEDOUT, f"the object store is silent: {type(error).__name__}") from error
