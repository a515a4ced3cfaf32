"""Media that are far more than they seem cost one item, bounded memory, and nothing of the process that asks."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from domain.manifest import ColumnType
from engine.data.decoders.pool import Decoders
from engine.data.limits import Undecodable
from engine.data.values import Reading
from support import bombs

MEGABYTE = 2**20
PICTURE = Reading(ColumnType.IMAGE)
SOUND, HALF_A_MINUTE = (
    Reading(ColumnType.AUDIO, sampling_rate=16_000, max_seconds=seconds) for seconds in (None, 30)
)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(1) as opened:
        yield opened


def highest(pid: int | str) -> int:
    """The most memory that a process ever had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@dataclass(frozen=True)
class Growth:
    """Bytes by which this process, and the decoder, grew at most since they were last asked."""

    decoder: int
    before: tuple[int, int]

    @classmethod
    def since_now(cls, decoder: int) -> "Growth":
        for pid in ("self", decoder):
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        return cls(decoder, (highest("self"), highest(decoder)))

    @property
    def here(self) -> int:
        return highest("self") - self.before[0]

    @property
    def there(self) -> int:
        return highest(self.decoder) - self.before[1]


def growth(decoders: Decoders) -> Growth:
    decoders.read(bombs.gif(8, 8), PICTURE)
    return Growth.since_now(*decoders.pids)


def outcome(decoders: Decoders, data: bytes, reading: Reading) -> str:
    """Code of the refusal, the same in a check and in decoding; `read` without any."""
    codes = []
    for call in (
        lambda: decoders.read(data, reading),
        lambda: decoders.probe(data, reading.kind, reading.max_seconds),
    ):
        try:
            call()
            codes.append("read")
        except Undecodable as refusal:
            codes.append(str(refusal.code))
    assert codes[0] == codes[1]
    return codes[0]


@pytest.mark.parametrize(
    ("data", "code", "megabytes"),
    [
        (bombs.png(10_000, 10_000, 10), "too_large", 8),
        (bombs.png(5000, 4000, 4000)[:-1000], "unreadable_media", 100),
        (bombs.png_with_text(64), "unreadable_media", 8),
        (bombs.gif(65_535, 65_535), "too_large", 8),
        (bombs.webp(16_384), "too_large", 8),
        (bombs.jpeg(65_000, 65_000), "too_large", 8),
        (bombs.tiff(100_000, 100_000), "too_large", 8),
        (bombs.tiff(5000, 4000), "unreadable_media", 100),
    ],
    ids=["png", "png cut off", "png text", "gif", "webp", "jpeg", "tiff", "tiff cut off"],
)
def test_a_picture_that_is_a_bomb_is_refused(
    decoders: Decoders, data: bytes, code: str, megabytes: int
) -> None:
    """One that claims more pixels than are allowed, before any memory is taken for them."""
    grown = growth(decoders)

    assert outcome(decoders, data, PICTURE) == code

    assert grown.here < 8 * MEGABYTE
    assert grown.there < megabytes * MEGABYTE


def test_of_a_gif_without_end_the_first_frame_is_the_picture(decoders: Decoders) -> None:
    assert decoders.read(bombs.endless_gif(100_000), PICTURE).shape == (1, 1, 3)


def test_a_sound_whose_header_lies_is_as_long_as_it_is(decoders: Decoders) -> None:
    grown = growth(decoders)

    assert len(decoders.read(bombs.wav_that_says(2**31), SOUND)) == 16_000

    assert max(grown.here, grown.there) < 8 * MEGABYTE


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: bombs.flac(bombs.HOURS),
        lambda: bombs.silence("mp3", "libmp3lame", bombs.HOURS, rate=16_000),
        lambda: bombs.silence("ogg", "libopus", bombs.HOURS),
        lambda: bombs.silence("mp4", "aac", bombs.HOURS, rate=16_000, film=True),
    ],
    ids=["flac", "mp3", "opus", "film"],
)
def test_ten_hours_of_silence_are_refused_and_their_first_half_minute_is_read(
    decoders: Decoders, make: Callable[[], bytes]
) -> None:
    data = make()
    grown = growth(decoders)

    assert outcome(decoders, data, SOUND) == "too_large"

    assert len(decoders.read(data, HALF_A_MINUTE)) == 480_000
    assert decoders.probe(data, ColumnType.AUDIO, 30.0).seconds == pytest.approx(36_000, rel=0.01)
    assert grown.here < 8 * MEGABYTE
    assert grown.there < 200 * MEGABYTE + 3 * len(data)


@pytest.mark.slow
@pytest.mark.parametrize("make", [bombs.jpeg, bombs.gif])
def test_the_largest_pictures_that_are_allowed_are_read_within_the_limits(
    decoders: Decoders, make: Callable[[int, int], bytes]
) -> None:
    assert decoders.read(make(8192, 8192), PICTURE).shape == (8192, 8192, 3)


def test_a_picture_that_takes_more_memory_than_is_allowed_is_too_large_and_the_next_one_is_read() -> None:
    with Decoders(1, memory=64 * MEGABYTE) as poor:
        with pytest.raises(Undecodable, match="memory") as refusal:
            poor.read(bombs.gif(6000, 6000), PICTURE)

        assert refusal.value.code == "too_large"

        assert poor.read(bombs.gif(8, 8), PICTURE).shape == (8, 8, 3)
