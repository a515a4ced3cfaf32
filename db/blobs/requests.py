"""Asks an S3-compatible store: with time limits, with a second and a third try, and with errors in our own words."""

import contextlib
import errno
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError

from domain.errors import Unavailable

log = logging.getLogger(__name__)

#: What a store that answers nothing costs: seconds to connect, seconds of silence, and as many tries.
CONNECT_S, SILENCE_S, TRIES = 3.0, 30.0, 3
_ABSENT = ("404", "NoSuchKey", "NoSuchUpload")


@dataclass(frozen=True)
class Place:
    """A bucket, and what opens it. An empty key means what boto3 finds by itself."""

    bucket: str
    endpoint_url: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = ""
    connect_s: float = CONNECT_S
    silence_s: float = SILENCE_S
    tries: int = TRIES

    def client(self, endpoint_url: str | None = None) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=(endpoint_url or self.endpoint_url) or None,
            region_name=self.region or None,
            aws_access_key_id=self.access_key or None,
            aws_secret_access_key=self.secret_key or None,
            config=Config(
                connect_timeout=self.connect_s,
                read_timeout=self.silence_s,
                retries={"mode": "standard", "total_max_attempts": self.tries},
                signature_version="s3v4",
                # Names of buckets as parts of host names are Amazon's; other stores mostly know paths only.
                s3={"addressing_style": "path" if self.endpoint_url else "auto"},
                # Not every store knows the newer checksums. Lengths are checked, and we have our own sha256.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # As many threads of ours as may ask at once; boto3's default of 10 would make them warn.
                max_pool_connections=64,
            ),
        )


@contextlib.contextmanager
def asking(key: str) -> Iterator[None]:
    """Turns what boto3 raises into FileNotFoundError or Unavailable."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _ABSENT:
            raise FileNotFoundError(errno.ENOENT, "no such blob", key) from None
        log.error("the object store refuses a request about %s: %s", key, error)
        raise _unavailable() from error
    except BotoCoreError as error:
        log.warning("the object store does not answer: %s", error)
        raise _unavailable() from error


def _unavailable() -> Unavailable:
    return Unavailable("The store of files does not answer; try again.", code="storage_unavailable")
