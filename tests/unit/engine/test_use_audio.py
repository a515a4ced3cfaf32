"""`use_audio`: the sound of a column of films is a modality of its own, and no second file."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from domain.errors import EngineError
from domain.manifest import Column, Schema
from domain.specs import Multimodal
from domain.towers import Tower, settled_towers
from engine.data.check import Report, check
from engine.data.manifest import open_dataset
from engine.data.preview import preview
from engine.data.profile import default_columns
from engine.data.silence import silenced
from engine.infer import Predictor, load
from engine.train.run import Finished, train
from support.datasets import tone, wav, zip_of
from support.encoders import AUDIO, VIT
from support.moving import moving

TONES = {"low": 300.0, "high": 2500.0}
SCHEMA = {"columns": {"clip": {"type": "video", "use_audio": True}}}
TOWERS: dict[str, Any] = {
    "clip": {"encoder": VIT, "num_frames": 3},
    "clip.audio": {"encoder": AUDIO, "max_seconds": 0.6},
}


def data(folder: Path, rows: int = 24, silent: int = 8, **changes: Any) -> Path:
    """Films whose tone is their label; the last `silent` ones have no sound track. `changes` replace cells of row 1."""
    table, media = [], {}
    for n in range(rows):
        label, name = list(TONES)[n % 2], f"{n}.mp4"
        tone_ = TONES[label] if n < rows - silent else None
        media[name] = moving(("left", "right")[n // 2 % 2], frames=5, seed=n, tone=tone_)
        row = {
            "id": str(n),
            "clip_file_name": name,
            "label": label,
            "split": ("train", "train", "test")[n % 3],
        }
        table.append(row | (changes if n == 0 else {}))
    media["broken.mp4"] = b"no film"
    return zip_of(folder / "clips.zip", table, media)


def looked(path: Path, **spec: Any) -> Report:
    with open_dataset(path, schema=Schema.model_validate(spec.get("schema", SCHEMA))) as dataset:
        return check(dataset, Multimodal.model_validate(spec))


def test_the_sound_of_films_is_a_column_that_no_key_names(tmp_path: Path) -> None:
    with open_dataset(data(tmp_path), schema=Schema.model_validate(SCHEMA)) as dataset:
        schema, issues = dataset.schema, dataset.issues
        row = dataset.rows[0]

    with open_dataset(data(tmp_path), schema=schema) as again:
        assert (again.schema, again.issues) == (schema, [])
    assert {name: str(column.type) for name, column in schema.columns.items()} == {
        "clip": "video",
        "clip.audio": "audio",
    }
    assert issues == []
    assert row.values["clip"] == row.values["clip.audio"]


def test_without_the_word_a_film_is_no_sound(tmp_path: Path) -> None:
    with open_dataset(data(tmp_path)) as dataset:
        assert list(dataset.schema.columns) == ["clip"]


def test_what_the_schema_says_of_the_sounds_counts_and_else_what_it_says_of_the_films(tmp_path: Path) -> None:
    films = {"type": "video", "use_audio": True, "max_seconds": 3}
    said = {"columns": {"clip": films, "clip.audio": {"type": "audio", "max_seconds": 1}}}

    with open_dataset(data(tmp_path), schema=Schema.model_validate({"columns": {"clip": films}})) as dataset:
        assert dataset.schema.columns["clip.audio"].max_seconds == 3
    with open_dataset(data(tmp_path), schema=Schema.model_validate(said)) as dataset:
        assert dataset.schema.columns["clip.audio"].max_seconds == 1


def test_only_a_column_of_films_can_bring_its_sound() -> None:
    with pytest.raises(ValidationError, match="use_audio is for columns of films"):
        Column.model_validate({"type": "audio", "use_audio": True})


@pytest.mark.parametrize(
    ("key", "schema", "code"),
    [
        ("clip.audio", SCHEMA, "duplicate_column"),
        ("other", {"columns": SCHEMA["columns"] | {"clip.audio": {"type": "text"}}}, "schema_mismatch"),
    ],
)
def test_a_column_that_has_the_sounds_name_already_is_told_of(
    tmp_path: Path, key: str, schema: Any, code: str
) -> None:
    report = looked(data(tmp_path, **{key: "a word"}), schema=schema)

    errors = [(i.code, i.column, i.param) for i in report.errors if i.param]
    assert errors[0] == (code, "clip.audio", "schema.columns.clip.use_audio")


def test_a_film_without_a_sound_track_is_no_error_and_its_sound_is_missing(tmp_path: Path) -> None:
    few = looked(data(tmp_path))
    many = looked(data(tmp_path, silent=16))

    assert few.errors == many.errors == []
    assert [i.code for i in few.issues] == []
    assert [(i.code, i.column) for i in many.issues] == [("high_missing_rate", "clip.audio")]


def test_who_only_listens_has_nothing_of_a_silent_film(tmp_path: Path) -> None:
    path = data(tmp_path, silent=2)

    report = looked(path, towers={"clip.audio": {"encoder": AUDIO}})

    assert [(i.code, i.line) for i in report.errors] == [
        ("all_modalities_missing", 23),
        ("all_modalities_missing", 24),
    ]


def test_a_broken_film_is_broken_for_both_and_can_be_masked(tmp_path: Path) -> None:
    path = data(tmp_path, clip_file_name="broken.mp4")

    strict = looked(path)
    masked = looked(path, on_bad_row="mask", max_bad_fraction=0.5)

    assert [(i.code, i.column) for i in strict.errors] == [
        ("unreadable_media", "clip"),
        ("unreadable_media", "clip.audio"),
    ]
    assert masked.errors == []
    assert masked.bad.skipped == {1}


def test_a_preview_shows_the_sound_where_there_is_one(tmp_path: Path) -> None:
    with open_dataset(data(tmp_path, rows=2, silent=1), schema=Schema.model_validate(SCHEMA)) as dataset:
        loud, silent = (row["cells"]["clip.audio"] for row in preview(dataset))

    assert max(loud["waveform"]) > 0.3
    assert silent is None


def trained(folder: Path, encoders: dict[str, Path], towers: dict[str, Any], **spec: Any) -> Predictor:
    given = {
        "towers": towers,
        "schema": SCHEMA,
        "fusion": {"dim": 16, "modality_dropout": 0.15},
        "hyperparameters": {"n_epochs": 30, "batch_size": 8, "learning_rate": 0.01},
    }
    ending = train(
        Multimodal.model_validate(given | spec),
        training=data(folder),
        cache=folder / "cache",
        encoders=encoders.__getitem__,
        out=folder / "out",
    )
    assert isinstance(ending, Finished)
    return load(folder / "out" / "model", encoders=encoders.__getitem__)


def test_a_model_reads_a_film_once_given_with_both_eyes_and_ears(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    model = trained(tmp_path, encoders, TOWERS)
    loud, silent = moving("left", frames=5, tone=TONES["low"]), moving("left", frames=5)

    whole, seen, unheard, heard, other = model.predict(
        [
            {"clip": loud},
            {"clip": silent},
            {"clip": loud, "clip.audio": None},
            {"clip.audio": loud},
            {"clip": silent, "clip.audio": wav(tone(0, np.random.default_rng(0)))},
        ]
    )

    assert model.columns == ("clip", "clip.audio")
    assert whole.label == "low"
    assert whole.modalities.used == ["clip", "clip.audio"]
    assert whole.modalities.weights is not None
    assert set(whole.modalities.weights) == {"clip", "clip.audio"}
    assert (seen.modalities.used, seen.modalities.missing) == (["clip"], ["clip.audio"])
    assert (unheard.modalities.used, unheard.modalities.missing) == (["clip"], ["clip.audio"])
    assert (heard.modalities.used, heard.modalities.missing) == (["clip.audio"], ["clip"])
    assert other.modalities.used == ["clip", "clip.audio"]


@pytest.mark.slow
def test_a_model_that_only_listens_is_given_the_film(tmp_path: Path, encoders: dict[str, Path]) -> None:
    model = trained(tmp_path, encoders, {"clip.audio": TOWERS["clip.audio"]})

    high, silent, broken = model.predict(
        [
            {"clip": moving("left", frames=5, tone=TONES["high"])},
            {"clip": moving("left", frames=5)},
            {"clip": b"no film"},
        ]
    )

    assert (high.label, high.modalities.used) == ("high", ["clip.audio"])
    assert silent.error is not None
    assert silent.error.code == "all_modalities_missing"
    assert broken.error is not None
    assert broken.error.code == "unreadable_media"
    assert "'clip': open('a.mp4', 'rb')" in (tmp_path / "out" / "model" / "README.md").read_text()


def test_a_tower_for_a_sound_that_nobody_asked_for_is_refused(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    with pytest.raises(EngineError) as refused:
        trained(tmp_path, encoders, TOWERS, schema=None)

    assert refused.value.code == "missing_column"


def test_a_default_tower_hears_what_use_audio_brings(tmp_path: Path) -> None:
    with open_dataset(data(tmp_path), schema=Schema.model_validate(SCHEMA)) as dataset:
        types = {name: column.type for name, column in dataset.schema.columns.items()}
        used, _ = default_columns(dataset.rows, types)

    assert (
        settled_towers({name: Tower() for name in used}, types)["clip.audio"].encoder
        == "openai/whisper-tiny.en"
    )


@pytest.mark.parametrize("cell", [7, ["a.mp4"] * 20])
def test_a_film_that_is_refused_is_an_error_also_where_only_its_sound_is_used(
    tmp_path: Path, cell: Any
) -> None:
    rows = [{"text": f"row {n}", "clip": cell if n == 3 else None, "label": "ab"[n % 2]} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    towers = {"text": {}, "clip.audio": {}}

    strict = looked(tmp_path / "rows.jsonl", towers=towers, schema=SCHEMA)
    masked = looked(
        tmp_path / "rows.jsonl", towers=towers, schema=SCHEMA, on_bad_row="mask", max_bad_fraction=0.5
    )

    assert [(issue.line, issue.column) for issue in strict.errors] == [(4, "clip.audio")]
    assert masked.errors == []
    assert masked.bad.masked == {"clip.audio": {4}}


def test_films_in_data_urls_are_not_remembered_whole(tmp_path: Path) -> None:
    url = "data:video/mp4;base64," + base64.b64encode(moving("left")).decode()
    (tmp_path / "rows.jsonl").write_text(json.dumps({"clip": url, "label": "a"}) + "\n")

    with open_dataset(tmp_path / "rows.jsonl", schema=Schema.model_validate(SCHEMA)) as dataset:
        heard = silenced(dataset, dataset.rows[0], ["clip.audio"])

    assert heard.values["clip.audio"] is None
    assert dataset.silent == {}
