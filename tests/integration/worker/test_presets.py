"""A job whose model is a preset: checked as what it becomes, and told so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.job import Lane, Stage, State
from support.datasets import tiny_av
from support.encoders import TEXT, VIT, tiny_encoders
from support.stack import Stack, stack

TOWERS = {"text": {"encoder": TEXT}, "audio": {"encoder": VIT, "max_seconds": 0.5}}


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    tiny_encoders(folder / "encoders")
    with stack(folder, encoders=folder / "encoders") as made:
        made.worker(Lane.CPU)
        yield made


def test_without_the_presets_encoders_the_check_says_how_they_are_fetched(
    plait: Stack, tmp_path: Path
) -> None:
    job_id = plait.submit(plait.upload(tiny_av(tmp_path)), {}, model="video-audio-clip")
    job = plait.until(job_id, lambda job: job.finished_at is not None)

    assert (job.state, job.error["code"]) == (State.FAILED, "encoder_unavailable")
    assert job.error["param"] == "multimodal.towers.audio.encoder"
    assert "plait-server encoders pull microsoft/resnet-50" in job.error["message"]


def test_a_preset_is_told_as_the_ordinary_spec_that_it_becomes(plait: Stack, tmp_path: Path) -> None:
    job_id = plait.submit(plait.upload(tiny_av(tmp_path)), {"towers": TOWERS}, model="video-audio-clip")
    job = plait.until(job_id, lambda job: job.finished_at is not None or job.stage == Stage.RUN)

    assert job.error is None
    assert job.resolved["preset"] is None
    # Pictures are none of the three, and were not named.
    assert {name: tower["encoder"] for name, tower in job.resolved["towers"].items()} == {
        "text": TEXT,
        "audio": VIT,
    }
