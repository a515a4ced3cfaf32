"""A real S3-compatible store for tests: SeaweedFS, which checks signatures, on free ports in a folder of its own."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError

from support.stack import ROOT, until

BUCKET, ACCESS_KEY, SECRET_KEY = "plait", "test-key", "test-secret-key"
#: What needs a port, http and gRPC: a master, a store of volumes, a filer, and S3 in front.
_PORTED = ("master", "volume", "filer", "s3")


@dataclass
class ObjectStore:
    url: str
    process: "subprocess.Popen[bytes]"

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}),
        )

    def settings(self, **more: Any) -> dict[str, Any]:
        """The settings of an installation that keeps its bytes here, below a prefix of its own."""
        values = {
            "s3_bucket": BUCKET,
            "s3_prefix": f"{secrets.token_hex(6)}/",
            "s3_endpoint_url": self.url,
            "s3_region": "us-east-1",
            "s3_access_key": ACCESS_KEY,
            "s3_secret_key": SECRET_KEY,
        }
        return {**values, **more}

    def is_ready(self) -> bool:
        try:
            # It may be there since the look before.
            with suppress(ClientError):
                self.client.create_bucket(Bucket=BUCKET)
            self.client.put_object(Bucket=BUCKET, Key="probe", Body=b"x")
        except (BotoCoreError, ClientError):
            return False
        return True


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Ready to be written to; gone with the block, and with this process."""
    folder = Path(tempfile.mkdtemp(prefix="plait-s3-"))
    (folder / "s3.json").write_text(json.dumps(_IDENTITIES))
    ports = _free_ports(2 * len(_PORTED))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _BECOME, str(os.getpid()), *_server(folder, ports)],
            cwd=ROOT,
            # A store for tests: little memory, whatever the machine has.
            env={**os.environ, "HOME": str(folder), "GOMEMLIMIT": "256MiB", "GOGC": "50"},
            stdout=log,
            stderr=log,
        )
    store = ObjectStore(f"http://127.0.0.1:{ports[-1]}", process)
    try:
        until(
            lambda: store.is_ready() or process.poll() is not None,
            bool,
            limit_s=60,
            about=(folder / "log").read_text,
        )
        assert process.poll() is None, (folder / "log").read_text()
        yield store
    finally:
        # A frozen one cannot be told to end.
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
        for port in ports:
            for left in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


_IDENTITIES = {
    "identities": [
        {
            "name": "plait",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
    ]
}


#: Ties the process to this one, then replaces it by the server: the tie outlives that.
_BECOME = "import lifeline, os, sys; lifeline.die_with_parent(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"


def _server(folder: Path, ports: list[int]) -> list[str]:
    flags = [
        str(Path(sys.executable).parent / "weed"),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
    ]
    grpc, http = ports[: len(_PORTED)], ports[len(_PORTED) :]
    for part, behind, before in zip(_PORTED, grpc, http, strict=True):
        flags += [f"-{part}.port={before}", f"-{part}.port.grpc={behind}"]
    return [
        *flags,
        f"-s3.config={folder / 's3.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.cacheCapacityMB=0",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=100",
        "-volume.minFreeSpacePercent=0",
    ]


def _free_ports(count: int) -> list[int]:
    """Free at this moment; all of them are held until the last is found, so that they differ."""
    with ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in found]
