"""Large files against a real server: the stock client, ours, and what is left when either is killed in the middle."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import psutil
import pytest
from sqlalchemy import func, select

import settings as configuration
from db import tenants
from db.session import Database
from db.tables import File, Upload, UploadPart
from plait import Client
from support.databases import migrated
from support.stack import ROOT, kill_tree, until

MIB = 1024 * 1024


@dataclass
class Served:
    settings: configuration.Settings
    database: Database
    key: str
    door: socket.socket
    process: "subprocess.Popen[bytes]"

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.door.getsockname()[1]}/v1"

    def start(self) -> None:
        """The web process; the listening socket is ours, so that it keeps its port."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "manage", "api", "--fd", str(self.door.fileno())],
            cwd=ROOT,
            env=configuration.environment(self.settings),
            pass_fds=[self.door.fileno()],
        )

    def kill(self) -> None:
        kill_tree(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def upload(self) -> Upload | None:
        with self.database.reading() as session:
            return session.scalars(select(Upload).order_by(Upload.created_at.desc())).first()

    def parts(self) -> int:
        with self.database.reading() as session:
            return int(session.scalar(select(func.count()).select_from(UploadPart)) or 0)

    def files(self) -> int:
        with self.database.reading() as session:
            return int(session.scalar(select(func.count()).select_from(File)) or 0)

    def peak(self) -> int:
        """The most bytes of memory that any process of the door ever had."""
        family = [self.process.pid, *(p.pid for p in psutil.Process(self.process.pid).children())]
        lines = [line for pid in family for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return max(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    def blobs(self) -> list[Path]:
        return [p for p in (self.settings.data / "blobs").rglob("*") if p.is_file()]


@contextmanager
def serving(data: Path) -> Iterator[Served]:
    data.mkdir()
    settings = configuration.Settings(data=data, log_level="warning")
    with migrated(settings.database) as database, socket.create_server(("127.0.0.1", 0)) as door:
        with database.transaction() as session:
            tenants.ensure(session)
            _, key = tenants.create_key(session, tenants.DEFAULT_TENANT, name="test")
        made = Served(settings, database, key, door, None)  # type: ignore[arg-type]
        made.start()
        try:
            yield made
        finally:
            made.kill()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "data") as made:
        yield made


@pytest.fixture
def stock(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key=served.key) as made:
        yield made


def noise(path: Path, size: int) -> Path:
    """A file of `size` bytes, no two of its parts alike."""
    with path.open("wb") as out:
        for _ in range(size // MIB):
            out.write(os.urandom(MIB))
        out.write(os.urandom(size % MIB))
    return path


def test_the_stock_client_uploads_a_file_in_parts(
    stock: openai.OpenAI, served: Served, tmp_path: Path
) -> None:
    path = noise(tmp_path / "rows.jsonl", 3_000_000)

    upload = stock.uploads.upload_file_chunked(
        file=path,
        mime_type="application/jsonl",
        purpose="fine-tune",
        part_size=700_000,
        md5=hashlib.md5(path.read_bytes()).hexdigest(),
    )

    assert upload.status == "completed"
    assert upload.file is not None
    assert upload.file.bytes == 3_000_000
    assert stock.files.content(upload.file.id).read() == path.read_bytes()
    assert len(served.blobs()) == 1
    other = stock.uploads.create(bytes=1, filename="a.csv", mime_type="text/csv", purpose="fine-tune")
    stock.uploads.parts.create(other.id, data=b"x")
    assert stock.uploads.cancel(other.id).status == "cancelled"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("plait.uploads.FROM_BYTES", MIB)
    monkeypatch.setattr("plait.uploads.PART_BYTES", MIB)


@pytest.mark.usefixtures("small_parts")
def test_our_client_sends_large_files_and_folders_in_parts_and_tells_progress(
    served: Served, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    noise(folder / "a.png", 2 * MIB + 5)
    seen: list[tuple[int, int]] = []

    with Client(served.base_url, served.key) as client:
        file = client.files.push(
            folder, schema={"label": "x"}, on_progress=lambda done, all_: seen.append((done, all_))
        )

    assert seen[-1] == (file.bytes, file.bytes)
    assert (file.filename, file.raw["schema"]["label"]) == ("folder.zip", "x")
    upload = served.upload()
    assert upload is not None
    assert (upload.parts, upload.received) == (3, file.bytes)
    assert not any((tmp_path / "cache" / "plait" / "uploads").iterdir())


@pytest.mark.usefixtures("small_parts")
def test_a_file_that_was_interrupted_goes_on_and_only_what_is_missing_or_changed_is_sent(
    served: Served, tmp_path: Path
) -> None:
    path = noise(tmp_path / "rows.jsonl", 6 * MIB)

    def stop(done: int, _: int) -> None:
        if done >= 3 * MIB:
            raise KeyboardInterrupt

    with Client(served.base_url, served.key) as client:
        with pytest.raises(KeyboardInterrupt):
            client.files.push(path, on_progress=stop)
        # Requests in hand at that moment come to their end.
        until(served.parts, lambda n: n >= 1, limit_s=20)
        with path.open("r+b") as out:
            out.write(b"changed")
        file = client.files.push(path)

        assert client.files.content(file.id) == path.read_bytes()
    upload = served.upload()
    assert upload is not None
    assert upload.status == "completed"
    assert upload.received < 12 * MIB
    assert served.files() == 1


@pytest.mark.usefixtures("small_parts")
def test_a_file_whose_end_the_client_did_not_hear_is_not_sent_again(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = noise(tmp_path / "rows.jsonl", 2 * MIB)
    with Client(served.base_url, served.key) as client:
        with monkeypatch.context() as broken:
            broken.setattr("plait.uploads._Memory.forget", lambda _: None)
            first = client.files.push(path)

        assert client.files.push(path).id == first.id
        client.files.delete(first.id)
        assert client.files.push(path).id != first.id


@pytest.mark.slow
def test_a_client_killed_in_the_middle_sends_only_the_rest_when_it_is_started_again(
    served: Served, tmp_path: Path
) -> None:
    path = noise(tmp_path / "rows.jsonl", 20 * 32 * MIB)
    env = {**os.environ, "PLAIT_BASE_URL": served.base_url, "PLAIT_API_KEY": served.key}
    env |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
    push = [sys.executable, "-c", "from plait.cli import main; main()", "files", "push", str(path), "--json"]

    with subprocess.Popen(push, env=env, stdout=subprocess.DEVNULL) as first:
        until(served.parts, lambda n: n >= 4, limit_s=120)
        first.kill()
    sent = served.parts()
    done = subprocess.run(push, env=env, capture_output=True, check=False, timeout=300)

    assert done.returncode == 0, done.stderr
    upload = served.upload()
    assert upload is not None
    assert upload.status == "completed"
    # Those that were on their way may have arrived behind the first look.
    assert upload.parts - sent <= 20 - sent + 4
    assert sent >= 4
    assert served.files() == 1


@pytest.mark.slow
def test_a_server_killed_while_a_part_comes_and_while_it_joins_loses_nothing(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = noise(tmp_path / "rows.jsonl", 640 * MIB)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    made: list[str] = []

    def push() -> None:
        with Client(served.base_url, served.key, max_retries=8) as client:
            made.append(client.files.push(path).raw["sha256"])

    sender = threading.Thread(target=push)
    sender.start()
    until(served.parts, lambda n: n >= 3, limit_s=120)
    served.kill()
    served.start()
    until(served.upload, lambda u: u is not None and u.joining is not None, limit_s=240)
    served.kill()
    assert served.files() == 0
    assert served.parts() >= 20
    served.start()
    sender.join(240)

    assert made == [digest]
    assert served.files() == 1


@pytest.mark.slow
def test_a_gigabyte_in_parts_is_never_in_memory(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = noise(tmp_path / "rows.jsonl", 1024 * MIB)

    with Client(served.base_url, served.key) as client:
        client.files.push(path)

    assert served.peak() < 200e6
