"""An installation that keeps files in an object store: uploads, a fine-tune, predictions and downloads go through it."""

from pathlib import Path

import openai
import pytest

from plait import Client
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT, tiny_encoders
from support.installation import installation
from support.object_store import BUCKET, ObjectStore


@pytest.mark.slow
def test_a_fine_tune_and_a_prediction_read_and_write_the_object_store(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    tiny_encoders(tmp_path / "encoders")
    data, archive = tmp_path / "data", tiny_av(tmp_path)
    towers = {"image": {"encoder": IMAGE}, "audio": {"encoder": AUDIO}, "text": {"encoder": TEXT}}
    kept = object_store.settings()

    with installation(data, encoders=str(tmp_path / "encoders"), **kept) as made:
        address = {"base_url": made.about["base_url"], "api_key": made.about["api_key"]}
        with Client(**address) as ours, openai.OpenAI(**address) as stock:
            file = ours.files.push(archive)
            job = stock.fine_tuning.jobs.create(
                model="late-fusion", training_file=file.id, extra_body={"multimodal": {"towers": towers}}
            )
            job = ours.jobs.wait(job.id)
            assert job.status == "succeeded", (job.error, made.logs)
            results = {name: stock.files.content(name).read() for name in job.result_files}
            copy = ours.files.download(file.id, tmp_path / "copy.zip")
            rows = [{"image": bytes(100_000)}, {"text": "zero"}]
            answer = ours.predictions.create(job.fine_tuned_model, rows)

    assert copy.read_bytes() == archive.read_bytes()
    assert results
    assert all(results.values())
    # A picture of zeros is a bad row, which only who has read its bytes from the store can tell.
    assert [row.error is None for row in answer.predictions] == [False, True]
    assert [path for path in (data / "blobs").rglob("*") if path.is_file()] == []
    listed = object_store.client.list_objects_v2(Bucket=BUCKET, Prefix=kept["s3_prefix"])
    assert len(listed["Contents"]) == 1 + len(results)
