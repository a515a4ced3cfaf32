"""Nothing but the given bytes is ever read: no address, no other file, whatever a film or playlist names."""

import io
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from engine.data import containers, decode, probe
from engine.data.decode import Undecodable
from support import zoo
from support.zoo import Film, Tone

READERS = [
    probe.probe_audio,
    probe.probe_video,
    lambda data: decode.audio(data, sampling_rate=16_000),
    lambda data: decode.video(data, num_frames=2),
]


@pytest.fixture
def neighbour(tmp_path: Path) -> Path:
    """A whole film with sound, on this machine's disk."""
    path = tmp_path / "neighbour.ts"
    path.write_bytes(zoo.filmed(Film("mpegts", "mpeg2video", frames=12, sound="mp2")))
    return path


@pytest.fixture
def door() -> Iterator[socket.socket]:
    """A server at which nobody should knock."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def address(door: socket.socket) -> str:
    return f"http://127.0.0.1:{door.getsockname()[1]}/a.ts"


def has_knocked(door: socket.socket) -> bool:
    try:
        door.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def refused_by_all(data: bytes) -> set[str]:
    codes = set()
    for read in READERS:
        with pytest.raises(Undecodable) as error:
            read(data)
        codes.add(str(error.value.code))
    return codes


def playlists(name: str) -> dict[str, str]:
    return {
        "hls": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{name}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{name}'\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
        '<Period><AdaptationSet mimeType="video/mp2t"><Representation id="1" bandwidth="1">'
        f"<BaseURL>{name}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "asx": f"[Reference]\r\nRef1={name}\r\n",
        "pattern": f"{Path(name).parent}/%03d.png",
        "subtitles": f"1\n00:00:00,000 --> 00:00:01,000\n{name}\n",
        "metadata": ";FFMETADATA1\ntitle=x\n",
    }


@pytest.mark.parametrize("kind", playlists("x"))
def test_a_playlist_is_refused_and_its_file_is_not_read(kind: str, neighbour: Path) -> None:
    assert probe.probe_audio(neighbour.read_bytes()) > 0.5

    for name in (str(neighbour), f"file:{neighbour}"):
        assert refused_by_all(playlists(name)[kind].encode()) == {"unreadable_media"}


@pytest.mark.parametrize("kind", playlists("x"))
def test_a_playlist_of_addresses_is_refused_and_nobody_is_called(kind: str, door: socket.socket) -> None:
    assert refused_by_all(playlists(address(door))[kind].encode()) == {"unreadable_media"}

    assert not has_knocked(door)


def opened(name: str, protocols: str) -> None:
    """A list of files, opened with every lock off but that of the protocols."""
    data = playlists(name)["concat"].encode()
    av.open(io.BytesIO(data), options={"safe": "0", "protocol_whitelist": protocols}, timeout=0.2).close()


def test_without_its_locks_ffmpeg_would_call_and_read(door: socket.socket, neighbour: Path) -> None:
    """The proof that the tests above would notice."""
    with pytest.raises(av.FFmpegError):
        opened(address(door), "http,tcp")
    opened(str(neighbour), "file")

    assert has_knocked(door)


def test_even_a_format_that_names_files_may_open_none(door: socket.socket, neighbour: Path) -> None:
    for name in (address(door), str(neighbour), f"file:{neighbour}"):
        with pytest.raises(av.FFmpegError):
            opened(name, containers.OPTIONS["protocol_whitelist"])

    assert not has_knocked(door)


def outward(data: bytes, name: str) -> bytes:
    """The MP4 with its first track's bytes said to lie in another file."""
    # A Macintosh alias: an empty volume, an empty name, and one entry with the absolute path.
    path = name.replace("/", ":").encode()
    path += bytes(len(path) % 2)
    record = (
        bytes(10 + 28 + 12 + 64 + 16 + 4 + 16) + struct.pack(">HH", 2, len(path)) + path + b"\xff\xff\0\0"
    )
    entry = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    whole = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    at = data.index(b"dref") - 4
    size = struct.unpack(">I", data[at : at + 4])[0]
    changed = bytearray(data[:at] + whole + data[at + size :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = changed.index(box) - 4
        old = struct.unpack(">I", changed[place : place + 4])[0]
        changed[place : place + 4] = struct.pack(">I", old + len(whole) - size)
    return bytes(changed)


@pytest.mark.parametrize(
    "kind", [Film("mov", "mjpeg", pixels="yuvj420p", frames=4), Tone("mov", "pcm_s16le")]
)
def test_a_film_whose_bytes_are_said_to_lie_elsewhere_reads_nothing_there(kind: Any, neighbour: Path) -> None:
    data = zoo.filmed(kind) if isinstance(kind, Film) else zoo.heard(kind)

    assert refused_by_all(outward(data, str(neighbour))) <= {"unreadable_media", "zero_duration"}
