"""Tux Paint stamps: real pictures with an English description each, spoken in Spanish, in ten classes.

They are in Debian's package tuxpaint-stamps-default (GPL-2), which is fetched by `apt-get download`, or given as a file. A row
is a stamp of one of the ten largest folders that has a description and a spoken one: 825. Its picture is drawn on a white
square, and its class is its folder. Many stamps share a description, so that groups are the descriptions: none is in two splits.
What frozen encoders tell of it is in docs/data.md.
"""

import io
import json
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import file_digest
from pathlib import Path

import numpy as np
from PIL import Image

from domain.errors import EngineError
from engine.samples.av_digits import SPLITS
from engine.samples.building import built

PACKAGE = "tuxpaint-stamps-default"
STAMPS = "usr/share/tuxpaint/stamps"
CLASSES = 10
#: Most stamps are described by voice in this language, and in English 65.
SPOKEN = "es"
#: The square, and what the stamp's longer side is made of it. Vectors are drawn large first.
PX, STAMP_PX, VECTOR_PX = 256, 224, 512
#: Raised when the bytes for a package change.
VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """All that the bytes depend on; kept beside them as `built.json`."""

    package_sha256: str
    seed: int
    limit: int | None
    version: int = VERSION


@dataclass(frozen=True)
class Stamp:
    #: Its path without an ending.
    id: str
    picture: Path
    speech: Path
    text: str
    label: str


def build(
    out: Path,
    *,
    seed: int = 0,
    limit: int | None = None,
    package: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Writes `out/metadata.jsonl` with its media, and the same as `<out>.zip`; returns the zip's path.

    `package` is the Debian package; without it, it is fetched. The same package, seed and limit give the same bytes. Raises
    EngineError where it cannot be had or unpacked.
    """
    say = progress or (lambda _: None)
    with _package(package, say) as deb:
        with deb.open("rb") as file:
            recipe = Recipe(file_digest(file, "sha256").hexdigest(), seed, limit)
        doing = "Building Tux Paint stamps: unpacking and drawing them …"
        return built(out, asdict(recipe), partial(_write, deb=deb, recipe=recipe), say, doing)


@contextmanager
def _package(given: Path | None, say: Callable[[str], None]) -> Iterator[Path]:
    if given is not None:
        if not given.is_file():
            raise EngineError("sample_failed", f"{given} is not a file; name Debian's package {PACKAGE}")
        yield given
        return
    tool = _tool("apt-get")
    with tempfile.TemporaryDirectory() as folder:
        say(f"Fetching {PACKAGE} (161 MB) …")
        _run([tool, "download", PACKAGE], Path(folder), f"fetch {PACKAGE}; try `apt-get update` first")
        yield next(Path(folder).glob("*.deb"))


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        message = (
            f"{name} is not here: it comes with Debian and Ubuntu. Build the set on such a machine or in a container of "
            f"theirs, and copy it; or name the package's file {PACKAGE}_….deb by --package where dpkg-deb is installed"
        )
        raise EngineError("sample_failed", message)
    return found


def _run(command: Sequence[str], folder: Path, what: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise EngineError(
            "sample_failed", f"{Path(command[0]).name} could not {what}: {done.stderr.strip()[-500:]}"
        )


def _write(out: Path, deb: Path, recipe: Recipe) -> None:
    rng = np.random.default_rng(recipe.seed)
    with tempfile.TemporaryDirectory() as folder:
        _run([_tool("dpkg-deb"), "-x", str(deb.absolute()), folder], Path(folder), f"unpack {deb}")
        found = stamps(Path(folder, STAMPS))
        texts = sorted({stamp.text for stamp in found})
        split_of = {texts[t]: SPLITS[i % len(SPLITS)] for i, t in enumerate(rng.permutation(len(texts)))}
        chosen = [found[n] for n in rng.permutation(len(found))[: recipe.limit]]
        for part in ("images", "speech"):
            (out / part).mkdir(parents=True)
        lines = []
        for n, stamp in enumerate(chosen):
            image, speech = f"images/{n:03}.png", f"speech/{n:03}{stamp.speech.suffix}"
            drawn(stamp.picture).save(out / image)
            (out / speech).write_bytes(stamp.speech.read_bytes())
            row = {
                "id": stamp.id,
                "image_file_name": image,
                "caption": stamp.text,
                "speech_file_name": speech,
                "label": stamp.label,
                "description": f"t{texts.index(stamp.text):03}",
                "split": split_of[stamp.text],
            }
            lines.append(json.dumps(row))
        (out / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def stamps(root: Path) -> list[Stamp]:
    """Those of the largest folders that are described in words and by voice, by their ids."""
    found = list(_described(root))
    largest = Counter(stamp.label for stamp, _ in found).most_common(CLASSES)
    labels = {label for label, _ in largest}
    spoken = [stamp for stamp, is_spoken in found if is_spoken and stamp.label in labels]
    if not spoken:
        raise EngineError("sample_failed", f"the package holds no described stamps; it must be {PACKAGE}")
    return sorted(spoken, key=lambda stamp: stamp.id)


def _described(root: Path) -> Iterator[tuple[Stamp, bool]]:
    """Every stamp with a text, and whether it is spoken, too. Links are passed over: they may lead anywhere."""
    for path in sorted(root.rglob("*")):
        has_twin = path.suffix == ".svg" and path.with_suffix(".png").exists()
        text = path.with_suffix(".txt")
        if (
            path.suffix not in (".png", ".svg")
            or has_twin
            or path.is_symlink()
            or text.is_symlink()
            or not text.is_file()
        ):
            continue
        words = text.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
        name, speech = path.relative_to(root), path.with_name(f"{path.stem}_desc_{SPOKEN}.ogg")
        if words:
            stamp = Stamp(name.with_suffix("").as_posix(), path, speech, words, name.parts[0])
            yield stamp, speech.is_file() and not speech.is_symlink()


def drawn(path: Path) -> Image.Image:
    """The stamp in the middle of a white square."""
    picture = _opened(path).convert("RGBA")
    picture.thumbnail((STAMP_PX, STAMP_PX), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (PX, PX), "white")
    square.alpha_composite(picture, ((PX - picture.width) // 2, (PX - picture.height) // 2))
    return square.convert("RGB")


def _opened(path: Path) -> Image.Image:
    if path.suffix == ".png":
        return Image.open(path)
    # Only this data set needs it, and who asks for another must not load it.
    import resvg_py

    # Without the machine's fonts, so that every machine draws the same.
    drawing = resvg_py.svg_to_bytes(svg_path=str(path), width=VECTOR_PX, dpi=96, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(drawing)))
