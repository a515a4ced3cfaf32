"""A family over tokens as a job: named by the job's model alone, trained and asked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import plait as sdk
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT, tiny_encoders
from support.installation import Installation, installation

TOWERS = {
    "image": {"encoder": IMAGE},
    "audio": {"encoder": AUDIO, "max_seconds": 0.5},
    "text": {"encoder": TEXT},
}


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installation")
    tiny_encoders(folder / "encoders")
    with installation(folder / "data", encoders=str(folder / "encoders")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mm-bert", "vilbert", "mult"])
def test_a_job_of_a_family_over_tokens_is_trained_and_answers_with_any_subset_of_modalities(
    plait: Installation, family: str, tmp_path: Path
) -> None:
    with sdk.Client(base_url=plait.about["base_url"], api_key=plait.about["api_key"]) as client:
        file = client.files.push(tiny_av(tmp_path, missing=0.2))
        spec = {"towers": TOWERS, "fusion": {"dim": 16}, "hyperparameters": {"n_epochs": 2}}

        job = client.jobs.create({"model": family, "training_file": file.id, "multimodal": spec})
        *_, (last, _) = client.jobs.watch(job.id)

        assert last.fine_tuned_model, (last.error, plait.logs)
        assert last.fine_tuned_model.startswith(f"ft:{family}:")
        answer = client.predictions.create(last.fine_tuned_model, [{"text": "a green shape"}, {}])
        told, empty = answer.predictions
        assert told.modalities.used == ["text"]
        assert sum(told.probabilities.values()) == pytest.approx(1, abs=1e-4)
        assert empty.error.code == "all_modalities_missing"
