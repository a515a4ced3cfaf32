"""Presets become ordinary specs once the columns' types are known."""

from typing import Any

import pytest

from domain.errors import EngineError, InvalidSpec
from domain.manifest import ColumnType
from domain.presets import spelled_out
from domain.shapes import parse
from domain.specs import FineTune, Multimodal

BERT, RESNET = "google-bert/bert-base-uncased", "microsoft/resnet-50"
TYPES = {
    "words": ColumnType.TEXT,
    "voice": ColumnType.AUDIO,
    "clip": ColumnType.VIDEO,
    "photo": ColumnType.IMAGE,
    "price": ColumnType.NUMBER,
}


def _asked(**multimodal: Any) -> Multimodal:
    body = {"model": "video-audio-clip", "training_file": "file-1", "multimodal": multimodal}
    return parse(FineTune, body).merged()


def test_a_jobs_model_may_be_a_preset_which_is_a_late_fusion_of_the_three() -> None:
    spec = spelled_out(_asked(), TYPES)

    assert {name: tower.encoder for name, tower in spec.towers.items()} == {
        "words": BERT,
        "voice": RESNET,
        "clip": RESNET,
    }
    assert (spec.preset, spec.family, spec.fusion.type) == (None, "late-fusion", "concat")


@pytest.mark.parametrize("absent", ["words", "voice", "clip"])
def test_any_of_the_three_may_be_absent(absent: str) -> None:
    types = {name: kind for name, kind in TYPES.items() if name != absent}

    assert set(spelled_out(_asked(), types).towers) == {"words", "voice", "clip"} - {absent}


def test_data_without_any_of_them_are_refused_with_what_there_could_be() -> None:
    with pytest.raises(EngineError, match="text, audio, video") as refused:
        spelled_out(_asked(), {"photo": ColumnType.IMAGE})

    assert (refused.value.code, refused.value.param) == ("missing_column", "multimodal.preset")


def test_what_towers_say_is_otherwise_and_the_rest_stays_the_presets() -> None:
    towers = {
        "voice": {"encoder": "openai/whisper-tiny.en", "max_seconds": 2},
        "clip": {"num_frames": 4},
        "photo": {"encoder": "google/mobilenet_v2_1.0_224"},
    }

    spec = spelled_out(_asked(towers=towers), TYPES)

    assert spec.towers["voice"].encoder == "openai/whisper-tiny.en"
    assert (spec.towers["clip"].encoder, spec.towers["clip"].num_frames) == (RESNET, 4)
    assert spec.towers["words"].encoder == BERT
    assert set(spec.towers) == {"words", "voice", "clip", "photo"}


def test_a_preset_can_be_named_in_the_spec_of_the_usual_family() -> None:
    body = {
        "model": "late-fusion",
        "training_file": "file-1",
        "multimodal": {"preset": "video-audio-clip"},
    }

    assert set(spelled_out(parse(FineTune, body).merged(), TYPES).towers) == {"words", "voice", "clip"}


def test_a_spec_without_a_preset_stays_as_it_is() -> None:
    spec = Multimodal()

    assert spelled_out(spec, TYPES) is spec


def test_a_word_that_is_neither_family_nor_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidSpec, match=r"late-fusion.*mm-gan.*video-audio-clip"):
        parse(FineTune, {"model": "audio-clip", "training_file": "file-1"})


def test_a_language_model_reads_texts_itself_and_the_preset_names_the_media_encoders_alone() -> None:
    spec = spelled_out(_asked(family="vlm"), TYPES)

    assert {name: tower.encoder for name, tower in spec.towers.items()} == {
        "words": None,
        "voice": RESNET,
        "clip": RESNET,
    }
    assert list(spec.tower_misfits(TYPES)) == []
