"""Emoji: 1250 real pictures with their names, for contrastive training: which name belongs to which picture.

Google's Noto pictures at 64 px, on white, out of emoji-datasource-google; English names and groups out of emojibase-data.
Flags and people are left out: hundreds that differ in a colour. The group is the label, for whoever wants one. A fifth
of the rows test, and a tenth validates, drawn by the seed.
"""

import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from domain.manifest import Split
from engine.samples.building import built
from engine.samples.npm import Package, fetch, members

PICTURES = Package(
    "emoji-datasource-google", "16.0.0", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
)
NAMES = Package(
    "emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"
)
#: By emojibase's numbers; 1 are people, 2 parts of others, 9 flags.
GROUPS = {0: "smileys", 3: "animals", 4: "food", 5: "travel", 6: "activities", 7: "objects", 8: "symbols"}
TEST, VALIDATION = 0.2, 0.1
#: Raised when the bytes for a seed change.
VERSION = 1

#: A package's archive in a folder: `engine.samples.npm.fetch`, unless it is there already.
Fetch = Callable[[Package, Path], Path]


@dataclass(frozen=True)
class Recipe:
    """All that the bytes depend on; kept beside them as `built.json`."""

    seed: int
    limit: int | None
    version: int = VERSION


def build(
    out: Path,
    *,
    seed: int = 0,
    limit: int | None = None,
    progress: Callable[[str], None] | None = None,
    get: Fetch = fetch,
) -> Path:
    """Writes `out/metadata.jsonl` with its pictures, and the same as `<out>.zip`; returns the zip's path.

    Seeded: the same seed and limit give the same bytes. A finished set is kept. Raises what `npm.fetch` raises.
    """
    recipe = Recipe(seed, limit)
    doing = "Building emoji: fetching 80 MB of pictures and names from the npm registry …"
    write = partial(_write, seed=seed, limit=limit, get=get)
    return built(out, asdict(recipe), write, progress or (lambda _: None), doing)


def _write(out: Path, seed: int, limit: int | None, get: Fetch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pictures, names = get(PICTURES, Path(folder)), get(NAMES, Path(folder))
        chosen = _chosen(pictures, names)[:limit]
        paths = [f"package/img/google/64/{image}" for _, image, _ in chosen]
        drawn = members(pictures, paths)
    splits = _splits(len(chosen), np.random.default_rng(seed))
    (out / "images").mkdir(parents=True)
    lines = []
    for number, ((name, image, group), path) in enumerate(zip(chosen, paths, strict=True)):
        (out / "images" / image).write_bytes(_on_white(drawn[path]))
        row = {"id": f"e{number:04}", "image_file_name": f"images/{image}", "text": name}
        lines.append(json.dumps(row | {"label": group, "split": str(splits[number])}))
    (out / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def _chosen(pictures: Path, names: Path) -> list[tuple[str, str, str]]:
    """Name, picture's file and group, in emojibase's order."""
    drawn = json.loads(members(pictures, ["package/emoji.json"])["package/emoji.json"])
    named: list[dict[str, Any]] = json.loads(members(names, ["package/en/data.json"])["package/en/data.json"])
    images = {_bare(entry["unified"]): entry["image"] for entry in drawn if entry["has_img_google"]}
    return [
        (entry["label"], images[code], GROUPS[entry["group"]])
        for entry in named
        if entry.get("group") in GROUPS and (code := _bare(entry["hexcode"])) in images
    ]


def _bare(code: str) -> str:
    """Without the selectors by which the two packages differ."""
    return code.replace("-FE0F", "")


def _splits(rows: int, rng: np.random.Generator) -> list[Split]:
    order, splits = rng.permutation(rows), [Split.TRAIN] * rows
    tests, validates = round(TEST * rows), round(VALIDATION * rows)
    for place, row in enumerate(order[: tests + validates].tolist()):
        splits[row] = Split.TEST if place < tests else Split.VALIDATION
    return splits


def _on_white(data: bytes) -> bytes:
    """A picture without transparency: what would lie behind it is else the decoder's choice."""
    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    buffer = io.BytesIO()
    Image.alpha_composite(white, picture).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
