"""What parts of the data plane do with one another: several films and pools, silence and lists, caches and lists."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domain.manifest import Schema
from domain.specs import Multimodal
from engine.data.decoders.pool import Decoders
from engine.data.manifest import MediaRef, Several, open_dataset
from engine.data.probe import is_silent
from engine.data.silence import silenced
from engine.infer import load
from engine.train.run import Finished, train
from support.datasets import png, shape, tone, wav, zip_of
from support.encoders import AUDIO, IMAGE, VIT
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
