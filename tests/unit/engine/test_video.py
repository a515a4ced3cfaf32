"""Films as a tower: from a column of files to a model that answers."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from domain.manifest import ColumnType
from domain.specs import Multimodal
from domain.towers import Tower
from engine.data.check import check
from engine.data.manifest import open_dataset
from engine.data.preview import preview
from engine.data.values import read_value
from engine.infer import load
from engine.models.encoders import Encoder, load_encoder
from engine.train.run import Finished, train
from support.datasets import zip_of
from support.encoders import IMAGE, TEXT, VIT

COLOURS = {"red": (220, 40, 40), "blue": (40, 50, 220)}


def film(colour: tuple[int, int, int], frames: int = 12, seed: int = 0, px: int = 48) -> bytes:
    """A square of the colour that moves over noise, ten frames a second."""
    rng, buffer = np.random.default_rng(seed), io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = px, px, "yuv420p"
        for n in range(frames):
            pixels = rng.integers(0, 60, (px, px, 3), dtype=np.uint8)
            pixels[10:34, n : n + 24] = colour
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(stream.encode())
    return buffer.getvalue()


def dataset(folder: Path, rows: int = 24, **changes: bytes | None) -> Path:
    """`video_file_name`, `text` and a label that is the square's colour; some rows lack one of the two."""
    media, table = {}, []
    for n in range(rows):
        label = list(COLOURS)[n % 2]
        name = f"films/{n}.mp4"
        media[name] = film(COLOURS[label], frames=3 + n % 10, seed=n)
        row = {"video_file_name": name, "text": f"film {n}", "label": label}
        row["split"] = ("train", "train", "train", "validation", "test")[n // 2 % 5]
        if n % 7 == 3:
            row["video_file_name"] = None
        table.append(row)
    for name, data in changes.items():
        media[f"films/{name}.mp4"] = data or b""
    return zip_of(folder / "films.zip", table, media)


def encoder(encoders: dict[str, Path], name: str = IMAGE, **options: Any) -> Encoder:
    return load_encoder(encoders[name], ColumnType.VIDEO, Tower.model_validate({"encoder": name, **options}))


@pytest.mark.parametrize("name", [IMAGE, VIT])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_film_is_the_mean_or_the_maximum_of_its_frames(
    encoders: dict[str, Path], name: str, pool: str
) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 40, 40, 3), dtype=np.uint8)
    pictures = load_encoder(encoders[name], ColumnType.IMAGE, Tower(encoder=name))
    films = encoder(encoders, name, pool=pool)

    with torch.no_grad():
        both = films(films.prepare([frames, frames[:2]]))
        each = pictures(pictures.prepare(list(frames)))

    def pooled(vectors: torch.Tensor) -> torch.Tensor:
        return vectors.mean(0) if pool == "mean" else vectors.amax(0)

    torch.testing.assert_close(both[0], pooled(each), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both[1], pooled(each[:2]), rtol=1e-4, atol=1e-5)


def test_a_tower_says_how_many_frames_are_read_and_how_large(encoders: dict[str, Path]) -> None:
    data = film(COLOURS["red"], frames=12)

    usual, few = encoder(encoders).reading, encoder(encoders, num_frames=3, sampling="head").reading

    # The encoder's pictures are 32 pixels a side: no more is decoded.
    assert read_value(data, usual).shape == (8, 32, 32, 3)
    assert read_value(data, few).shape == (3, 32, 32, 3)


def test_reading_it_otherwise_is_another_function(encoders: dict[str, Path]) -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"num_frames": 4},
        {"sampling": "head"},
        {"pool": "max"},
        {"max_seconds": 1},
    ]

    prints = {encoder(encoders, **options).fingerprint for options in asked}

    assert len(prints) == len(asked)


def test_a_model_of_films_and_texts_is_trained_and_answers_with_any_of_them(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    spec = {
        "towers": {"video": {"encoder": VIT, "num_frames": 4}, "text": {"encoder": TEXT}},
        "fusion": {"dim": 16},
        "hyperparameters": {"n_epochs": 30, "batch_size": 8, "learning_rate": 0.01},
    }

    ending = train(
        Multimodal.model_validate(spec),
        training=dataset(tmp_path),
        cache=tmp_path / "cache",
        encoders=encoders.__getitem__,
        out=tmp_path / "out",
    )

    assert isinstance(ending, Finished)
    model = load(tmp_path / "out" / "model", encoders=encoders.__getitem__)
    unseen = [{"video": film(colour, seed=99 + n)} for n, colour in enumerate(COLOURS.values())]
    answers = model.predict([*unseen, {"text": "film 1"}, {"video": b"no film", "text": "film 2"}])
    assert [answer.label for answer in answers[:2]] == ["red", "blue"]
    assert answers[2].modalities.missing == ["video"]
    assert answers[3].error is not None
    assert (answers[3].error.code, answers[3].error.param) == ("unreadable_media", "video")


def test_a_tower_of_films_can_be_trained_itself(encoders: dict[str, Path], tmp_path: Path) -> None:
    spec = {
        "towers": {"video": {"encoder": IMAGE, "num_frames": 2, "freeze": False, "lr": 0.003}},
        "fusion": {"dim": 8},
        "hyperparameters": {"n_epochs": 2, "batch_size": 4},
    }
    whole = dataset(tmp_path, rows=12)

    ending = train(
        Multimodal.model_validate({**spec, "on_bad_row": "skip"}),
        training=_without_gaps(whole),
        cache=tmp_path / "cache",
        encoders=encoders.__getitem__,
        out=tmp_path / "out",
    )

    assert isinstance(ending, Finished)


def _without_gaps(path: Path) -> Path:
    rows = [
        {"video_file_name": f"films/{n}.mp4", "label": list(COLOURS)[n % 2]} for n in range(12) if n % 7 != 3
    ]
    media = {
        row["video_file_name"]: film(COLOURS[row["label"]], frames=3, seed=n) for n, row in enumerate(rows)
    }
    return zip_of(path.with_name("whole.zip"), rows, media)


def test_films_are_told_by_their_names_and_checked_frame_and_length(tmp_path: Path) -> None:
    broken = {"2": b"no film", "4": film(COLOURS["red"])[:900], "6": film(COLOURS["red"], frames=30)}
    path = dataset(tmp_path, **broken)
    spec = Multimodal.model_validate({"towers": {"video": {"encoder": "a/b", "max_seconds": 2}}})

    with open_dataset(path) as data:
        types = {name: str(column.type) for name, column in data.schema.columns.items()}
        report = check(data, spec)

    assert types == {"video": "video", "text": "text"}
    found = [(i.line, i.code, i.severity) for i in report.issues if i.column == "video"]
    assert found == [
        (3, "unreadable_media", "error"),
        (5, "unreadable_media", "error"),
        (7, "too_long", "warning"),
    ]


def test_a_preview_shows_a_films_middle_and_what_it_is(tmp_path: Path) -> None:
    with open_dataset(dataset(tmp_path, rows=4)) as data:
        first, *_, last = preview(data)

    cell = first["cells"]["video"]
    assert (cell["width"], cell["height"], cell["frames"], cell["has_audio"]) == (48, 48, 3, False)
    assert cell["seconds"] == 0.3
    assert cell["thumbnail"].startswith("data:image/webp;base64,")
    assert last["cells"]["video"] is None
