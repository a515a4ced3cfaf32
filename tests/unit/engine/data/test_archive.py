"""Zips as people send them: cut off, tampered with, or packed to hurt."""

import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.data.archive import RATIO_FLOOR_BYTES, Archive, Unreadable, escapes
from engine.data.manifest import open_dataset
from support.datasets import zip_of


def codes(path: Path) -> list[str]:
    with open_dataset(path) as dataset:
        return [str(issue.code) for issue in dataset.issues]


def refusal(archive: Archive, name: str) -> str:
    with pytest.raises(Unreadable) as refused:
        archive.read(name)
    return str(refused.value.code)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../up.png", "a/../../up.png", "C:/up.png", "c:up.png", "a\\b.png", "\\\\host\\up"],
)
def test_a_path_that_leaves_the_zip_is_recognised_in_any_systems_writing(name: str) -> None:
    assert escapes(name)


@pytest.mark.parametrize("name", ["a.png", "a/b.png", "./a.png", "a..b/c...png", "é/ü 1.png"])
def test_an_ordinary_path_stays_inside(name: str) -> None:
    assert not escapes(name)


def test_a_zip_that_was_cut_off_is_named_as_damaged(tmp_path: Path) -> None:
    whole = zip_of(tmp_path / "whole.zip", [{"text": "a", "label": "b"}] * 50, {})
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-40])

    assert codes(tmp_path / "cut.zip") == ["unsupported_format"]


def test_a_member_whose_bytes_were_changed_is_unreadable(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", [], {"1.bin": b"untouched bytes"})
    path.write_bytes(path.read_bytes().replace(b"untouched", b"tampered!", 1))
    archive = Archive(path)

    assert refusal(archive, "1.bin") == "unreadable_media"
    archive.close()


def test_an_encrypted_member_is_refused_with_its_reason(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", [], {"1.bin": b"data"})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    archive = Archive(path)

    assert refusal(archive, "1.bin") == "unsupported_format"
    archive.close()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packing_that_cannot_be_stopped_while_it_unpacks_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as out:
        out.writestr("1.bin", b"data")
    archive = Archive(tmp_path / "a.zip")

    assert refusal(archive, "1.bin") == "unsupported_format"
    archive.close()


def test_a_bomb_is_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("metadata.jsonl", '{"text": "a", "label": "b"}')
        out.writestr("bomb.png", bytes(RATIO_FLOOR_BYTES + 1))

    assert codes(tmp_path / "a.zip") == ["zip_bomb"]


def test_a_small_bomb_beside_honest_files_is_refused_when_it_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(zipfile.ZipInfo("honest.bin"), bytes(RATIO_FLOOR_BYTES // 8))
        out.writestr("bomb.png", bytes(RATIO_FLOOR_BYTES + 1))
    archive = Archive(tmp_path / "a.zip")

    assert archive.bomb is None
    assert refusal(archive, "bomb.png") == "zip_bomb"
    archive.close()


def test_a_member_that_understates_its_size_is_not_unpacked_beyond_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("1.bin", bytes(1000))
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    archive = Archive(tmp_path / "a.zip")

    assert refusal(archive, "1.bin") == "unreadable_media"
    archive.close()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_not_chosen_between(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("metadata.jsonl", '{"text": "a", "label": "b"}')
        out.writestr("1.png", b"one")
        out.writestr("1.png", b"two")

    assert codes(tmp_path / "a.zip") == ["unsupported_format"]


def test_a_member_that_points_out_of_the_zip_is_named(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", [{"text": "a", "label": "b"}], {"../../evil.png": b""})

    with open_dataset(path) as dataset:
        assert [(i.code, i.value) for i in dataset.issues] == [("path_escapes_archive", "../../evil.png")]


@pytest.mark.parametrize("damaged", [b"\0.png", b"\0\0\0\0\0"])
def test_a_member_whose_name_was_damaged_away_is_named(tmp_path: Path, damaged: bytes) -> None:
    path = zip_of(tmp_path / "a.zip", [{"text": "a", "label": "b"}], {"1.png": b""})
    path.write_bytes(path.read_bytes().replace(b"1.png", damaged))

    assert codes(path) == ["path_escapes_archive"]


def test_a_name_is_found_in_either_way_of_writing_its_accents(tmp_path: Path) -> None:
    archive = Archive(zip_of(tmp_path / "a.zip", [], {"caf\u0065\u0301.bin": b"data"}))

    assert archive.read("caf\u00e9.bin") == b"data"
    archive.close()


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    media = {f"{n}.bin": bytes([n]) * 100_000 for n in range(32)}
    archive = Archive(zip_of(tmp_path / "a.zip", [], media))
    start = threading.Barrier(8)

    def read_all(_: int) -> bool:
        start.wait()
        return all(archive.read(name) == data for name, data in media.items())

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(read_all, range(8)))

    assert all(results)
    archive.close()
