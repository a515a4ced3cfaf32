"""Whatever is uploaded, a check ends in a report."""

import json
import zipfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.manifest import Code, Schema
from domain.specs import Multimodal
from engine.data import decode, probe
from engine.data.check import Report, check
from engine.data.decode import Undecodable
from engine.data.manifest import open_dataset
from support.datasets import png, tiny_av, wav
from support.zoo import Film, Tone, filmed, heard

FOUND = {str(code) for code in Code}
SPECS = [Multimodal(), Multimodal.model_validate({"towers": {"image": {"encoder": "a/b"}}})]
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

KEYS = st.sampled_from(
    ["file_name", "image", "image_file_name", "text", "label", "target", "id", "split", ""]
)
CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1.png", "2.wav"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ROWS = st.dictionaries(KEYS | st.text(max_size=5), CELLS, max_size=6)
NAMED = st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("./\\:")
SCHEMAS = st.none() | st.builds(
    Schema,
    columns=st.dictionaries(
        KEYS, st.sampled_from([{"type": t} for t in ("text", "image", "number", "category")])
    ),
    label=st.none() | KEYS,
    split=st.none() | KEYS,
    group=st.none() | KEYS,
)


def report(data: bytes, name: str, schema: Schema | None = None, spec: Multimodal = SPECS[0]) -> Report:
    """The check of `data` as an upload; whatever it says can be stored in any database."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        with open_dataset(path, schema=schema) as dataset:
            made = check(dataset, spec)
    shown = [word for issue in made.issues for word in issue.as_dict().values() if isinstance(word, str)]
    for word in [*shown, *made.columns, *made.classes]:
        assert "\0" not in word
        word.encode("utf-8")
    assert {issue.code for issue in made.issues} <= FOUND
    assert made.rows or made.errors
    return made


@QUICK
@given(rows=st.lists(ROWS, max_size=8), schema=SCHEMAS, spec=st.sampled_from(SPECS))
def test_any_rows_end_in_a_report(
    rows: list[dict[str, Any]], schema: Schema | None, spec: Multimodal
) -> None:
    report("\n".join(json.dumps(row) for row in rows).encode(), "rows.jsonl", schema, spec)


@QUICK
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_any_bytes_end_in_a_report(data: bytes) -> None:
    for name in ("a.jsonl", "a.csv", "a.zip", "a"):
        report(data, name)


@QUICK
@given(text=st.text(alphabet='ab,"\n\r\0;é', max_size=80), schema=SCHEMAS)
def test_any_csv_ends_in_a_report(text: str, schema: Schema | None) -> None:
    report(b"text,label\n" + text.encode(), "rows.csv", schema)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_av(tmp_path_factory.mktemp("tiny"), rows=4, px=8).read_bytes()


@QUICK
@given(data=st.data())
# What Pillow and the zip reader find odd, they also say aloud.
@pytest.mark.filterwarnings("ignore")
def test_any_damage_to_a_zip_ends_in_a_report(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        # The central directory lies at the end, where damage hurts most.
        back = data.draw(st.integers(1, 1500) | st.integers(1, len(whole)))
        damaged[-back] = data.draw(st.integers(0, 255))

    report(bytes(damaged[: data.draw(st.just(len(whole)) | st.integers(30, len(whole)))]), "a.zip")


@QUICK
@given(names=st.lists(st.text(NAMED, min_size=1, max_size=20), min_size=1, max_size=5))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_any_names_of_members_end_in_a_report(names: list[str]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.zip"
        with zipfile.ZipFile(path, "w") as out:
            out.writestr("metadata.jsonl", "".join(json.dumps({"file_name": n}) + "\n" for n in names))
            for name in names:
                out.writestr(name, b"")
        data = path.read_bytes()

    report(data, "a.zip")


PIXELS = np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3)
SOUND = np.sin(np.arange(400) / 5)


@QUICK
@given(data=st.data(), whole=st.sampled_from([png(PIXELS), wav(SOUND), wav(SOUND, format="FLAC")]))
@pytest.mark.filterwarnings("ignore")
def test_any_damage_to_media_is_refused_or_read(data: st.DataObject, whole: bytes) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))

    for read in (
        probe.probe_image,
        probe.probe_audio,
        decode.image,
        lambda given: decode.audio(given, sampling_rate=16_000, max_seconds=1),
    ):
        with suppress(Undecodable):
            read(bytes(damaged))


FILMS = [
    filmed(Film("mp4", "libx264", frames=6, gop=3, sound="aac")),
    filmed(Film("mp4", "libx264", frames=6, gop=3, muxing={"movflags": "frag_keyframe+empty_moov"})),
    filmed(Film("matroska", "ffv1", frames=4, sound="flac", size=(16, 16))),
    filmed(Film("webm", "libvpx-vp9", frames=6, gop=3, sound="libopus", options={"deadline": "realtime"})),
    filmed(Film("avi", "mpeg4", frames=6, gop=3, options={"bf": "2"}, sound="mp2")),
    filmed(Film("mpegts", "mpeg2video", frames=6, gop=3, sound="ac3")),
    filmed(Film("flv", "flv", frames=6, gop=3)),
    filmed(Film("asf", "wmv2", frames=6, gop=3)),
    filmed(Film("gif", "gif", frames=4, pixels="rgb8", size=(16, 16))),
    heard(Tone("ipod", "alac", seconds=0.1)),
    heard(Tone("wv", "wavpack", seconds=0.1)),
]


def damage_and_read(data: st.DataObject, whole: bytes) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 8))):
        # Headers lie at the beginning or at the end.
        place = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 300) | st.integers(-300, -1))
        damaged[place % len(whole)] = data.draw(
            st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
        )
    given = bytes(damaged[: data.draw(st.just(len(whole)) | st.integers(1, len(whole)))])

    for read in (
        probe.probe_audio,
        probe.probe_video,
        lambda given: decode.audio(given, sampling_rate=16_000, max_seconds=1),
        lambda given: decode.video(given, num_frames=3, size=16),
    ):
        with suppress(Undecodable):
            read(given)


@QUICK
@given(data=st.data(), whole=st.sampled_from(FILMS))
@pytest.mark.filterwarnings("ignore")
def test_any_damage_to_a_film_is_refused_or_read(data: st.DataObject, whole: bytes) -> None:
    damage_and_read(data, whole)


@settings(QUICK, max_examples=3000)
@given(data=st.data(), whole=st.sampled_from(FILMS))
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_much_damage_to_films_is_refused_or_read(data: st.DataObject, whole: bytes) -> None:
    damage_and_read(data, whole)
