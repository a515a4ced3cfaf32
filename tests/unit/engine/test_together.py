"""What parts of the data plane do with one another: several films and pools, silence and lists, caches and lists."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domain.errors import EngineError
from domain.manifest import Schema
from domain.specs import Multimodal
from engine.data.decoders.pool import Decoders
from engine.data.manifest import MediaRef, Several, open_dataset
from engine.data.probe import is_silent
from engine.data.silence import silenced
from engine.data.splits import open_splits
from engine.infer import load
from engine.train.run import Finished, train
from support.datasets import png, shape, tone, wav, zip_of
from support.encoders import AUDIO, IMAGE, TEXT, VIT
from support.moving import moving


def trained(
    folder: Path, data: Path, encoders: dict[str, Path], towers: dict[str, Any], **spec: Any
) -> Finished:
    given = {"towers": towers, "fusion": {"dim": 8}, "hyperparameters": {"n_epochs": 3, "batch_size": 4}}
    ending = train(
        Multimodal.model_validate(given | spec),
        training=data,
        cache=folder / "cache",
        encoders=encoders.__getitem__,
        out=folder / "out",
    )
    assert isinstance(ending, Finished)
    return ending


def test_of_several_films_a_trained_pool_makes_a_vector_each_and_their_mean_counts(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    films = {f"{n}.mp4": moving(("left", "right")[n % 2], seed=n) for n in range(24)}
    rows = [
        {"film_file_names": [f"{n}.mp4", f"{n + 12}.mp4"] if n % 3 else [f"{n}.mp4"], "label": "ab"[n % 2]}
        for n in range(12)
    ]
    towers = {"film": {"encoder": VIT, "num_frames": 4, "pool": "transformer"}}
    trained(tmp_path, zip_of(tmp_path / "data.zip", rows, films), encoders, towers)

    model = load(tmp_path / "out" / "model", encoders=encoders.__getitem__)
    pair = [films["0.mp4"], films["1.mp4"]]
    both, one, other = model.predict(
        [{"film": pair}, {"film": pair[0]}, {"film": pair[1]}], return_embeddings=True
    )

    assert both.error is None
    encoder = model.model.encoder("film")
    with torch.inference_mode():
        vectors = [encoder(encoder.prepare([model._media.read(film, encoder.reading)])) for film in pair]
        fused = model.model.fusion([torch.stack(vectors).mean(0)], torch.tensor([[True]]))
    assert both.embedding == pytest.approx(fused[0].tolist(), abs=1e-5)
    assert one.embedding != other.embedding


SOUNDS = Schema.model_validate({"columns": {"clip": {"type": "video", "use_audio": True}}})


def test_of_several_films_those_with_a_sound_track_are_heard(tmp_path: Path) -> None:
    loud, silent = moving("left", tone=440.0), moving("right")
    rows = [
        {"clip_file_names": ["loud.mp4", "silent.mp4"], "label": "a"},
        {"clip_file_names": ["loud.mp4", "loud.mp4", "silent.mp4"], "label": "b"},
        {"clip_file_names": ["silent.mp4", "silent.mp4"], "label": "a"},
        {"clip_file_names": ["loud.mp4", "loud.mp4"], "label": "b"},
    ]
    data = zip_of(tmp_path / "data.zip", rows, {"loud.mp4": loud, "silent.mp4": silent})

    with open_dataset(data, schema=SOUNDS) as dataset:
        heard = [silenced(dataset, row, ["clip.audio"]).values["clip.audio"] for row in dataset.rows]

    assert isinstance(heard[0], MediaRef)
    assert heard[0].name == "loud.mp4"
    assert [len(cell.parts) for cell in (heard[1], heard[3]) if isinstance(cell, Several)] == [2, 2]
    assert heard[2] is None


def test_a_prediction_hears_those_of_several_films_that_have_a_sound_track(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    rows = [{"clip_file_name": f"{n}.mp4", "label": "ab"[n % 2]} for n in range(8)]
    films = {f"{n}.mp4": moving("left", seed=n, tone=(300.0, 2500.0)[n % 2]) for n in range(8)}
    towers = {"clip.audio": {"encoder": AUDIO, "max_seconds": 0.5}}
    data = zip_of(tmp_path / "data.zip", rows, films)
    trained(tmp_path, data, encoders, towers, schema=SOUNDS.model_dump())

    model = load(tmp_path / "out" / "model", encoders=encoders.__getitem__)
    silent = moving("right")
    mixed, alone, nothing = model.predict(
        [{"clip": [films["0.mp4"], silent]}, {"clip": films["0.mp4"]}, {"clip": [silent, silent]}],
        return_embeddings=True,
    )

    assert mixed.embedding == pytest.approx(alone.embedding, abs=1e-6)
    assert nothing.error is not None
    assert nothing.error.code == "all_modalities_missing"


def test_several_files_of_a_trained_tower_are_read_from_the_cache_in_later_epochs(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    sounds = {f"{n}.wav": wav(tone(n % 2, np.random.default_rng(n))) for n in range(24)}
    rows = [
        {"audio_file_names": [f"{n}.wav", f"{n + 12}.wav"] if n % 2 else [f"{n}.wav"], "label": "ab"[n % 2]}
        for n in range(12)
    ]
    towers = {"audio": {"encoder": AUDIO, "max_seconds": 0.5, "freeze": False, "lr": 1e-3}}

    ending = trained(tmp_path, zip_of(tmp_path / "data.zip", rows, sounds), encoders, towers)
    again = trained(tmp_path / "again", tmp_path / "data.zip", encoders, towers)

    # The first of the epochs decodes, and validation asks too.
    assert 0.5 < ending.metrics["media_cache_hit_rate"] < 1
    assert again.metrics["media_cache_hit_rate"] < 1  # it has a cache of its own
    same = {"test_accuracy", "valid_loss", "valid_accuracy"} & set(ending.metrics)
    assert {name: again.metrics[name] for name in same} == {name: ending.metrics[name] for name in same}


def test_one_picture_of_several_that_is_not_worth_keeping_costs_no_other_its_place(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    """A flat picture is a thousand times larger than its file, and is decoded each time; noise is kept."""
    noise = {f"{n}.png": png(shape(n % 2, 32, np.random.default_rng(n))) for n in range(12)}
    flat = png(np.full((600, 600, 3), 7, np.uint8))
    rows = [{"image_file_names": [f"{n}.png", "flat.png"], "label": "ab"[n % 2]} for n in range(12)]
    towers = {"image": {"encoder": IMAGE, "freeze": False, "lr": 1e-3}}

    ending = trained(
        tmp_path, zip_of(tmp_path / "data.zip", rows, {**noise, "flat.png": flat}), encoders, towers
    )

    assert 0 < ending.metrics["media_cache_hit_rate"] < 1


def test_silence_is_heard_alike_in_a_process_of_its_own() -> None:
    cases = [
        moving("left", tone=440.0),
        moving("left"),
        wav(tone(0, np.random.default_rng(0))),
        b"no film",
        b"",
    ]

    with Decoders(1) as decoders:
        theirs = [decoders.media.is_silent(data) for data in cases]

    assert theirs == [is_silent(data) for data in cases] == [False, True, False, False, False]


def test_frozen_towers_whose_films_are_encoded_in_each_epoch_are_planned_as_trained_ones(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    films = {f"{n}.mp4": moving(("left", "right")[n % 2], seed=n) for n in range(8)}
    said: list[dict[str, Any]] = []
    for several in (False, True):
        rows = [{"film_file_name": f"{n}.mp4", "label": "ab"[n % 2]} for n in range(8)]
        if several:
            rows[0] = {"film_file_names": ["0.mp4", "2.mp4"], "label": "a"}
        spec = {"towers": {"film": {"encoder": VIT, "num_frames": 2, "pool": "attention"}}}
        train(
            Multimodal.model_validate({**spec, "fusion": {"dim": 8}}),
            training=zip_of(tmp_path / f"{several}.zip", rows, films),
            cache=tmp_path / "cache",
            encoders=encoders.__getitem__,
            out=tmp_path / str(several),
            decided=said.append,
            should_stop=lambda: "cancel",
        )

    plans = [(s["hyperparameters"]["n_epochs"], s["hyperparameters"]["batch_size"]) for s in said]
    assert plans == [(80, 32), (10, 16)]


def test_columns_that_the_spec_leaves_open_are_typed_by_the_training_file_alone(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    """Its validation file holds a number where text is, and a word where a number is."""
    (tmp_path / "train.jsonl").write_text(
        "\n".join(json.dumps({"note": f"word {n}", "age": n * 7 % 5, "y": "ab"[n % 2]}) for n in range(12))
    )
    (tmp_path / "valid.jsonl").write_text(json.dumps({"note": "7", "age": 3, "y": "a"}) + "\n")
    spec = Multimodal.model_validate(
        {"towers": {"note": {"encoder": TEXT}, "age": {}}, "schema": {"label": "y"}, "fusion": {"dim": 8}}
    )
    with ExitStack() as files:
        splits = open_splits(files, spec, tmp_path / "train.jsonl", tmp_path / "valid.jsonl", None, 0)
        assert splits.validation[0].row.values == {"note": "7", "age": 3.0}

    (tmp_path / "valid.jsonl").write_text(json.dumps({"note": "a", "age": "unknown", "y": "a"}) + "\n")
    with ExitStack() as files, pytest.raises(EngineError) as refused:
        open_splits(files, spec, tmp_path / "train.jsonl", tmp_path / "valid.jsonl", None, 0)
    assert (refused.value.code, refused.value.param) == ("schema_mismatch", "validation_file")


def test_eight_films_are_the_most_of_a_predictions_cell_as_of_a_training_rows(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    rows = [{"film_file_name": f"{n}.mp4", "label": "ab"[n % 2]} for n in range(6)]
    films = {f"{n}.mp4": moving("left", seed=n) for n in range(6)}
    towers = {"film": {"encoder": VIT, "num_frames": 1}}
    trained(tmp_path, zip_of(tmp_path / "data.zip", rows, films), encoders, towers)
    model = load(tmp_path / "out" / "model", encoders=encoders.__getitem__)

    fits, many = model.predict([{"film": [films["0.mp4"]] * 8}, {"film": [films["0.mp4"]] * 9}])

    assert fits.error is None
    assert many.error is not None
    assert (many.error.code, many.error.param) == ("too_large", "film")
