"""The stock `openai` client against the whole stack: only `base_url` and `api_key` are ours."""

import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from zipfile import ZipFile

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT, tiny_encoders
from support.installation import Installation, installation
from support.proxy import lossy_proxy
from support.scripted import ScriptedServer
from support.stack import until

FINAL = ("succeeded", "failed", "cancelled")
MULTIMODAL = {
    "towers": {"image": {"encoder": IMAGE}, "audio": {"encoder": AUDIO}, "text": {"encoder": TEXT}},
    "hyperparameters": {"n_epochs": 3},
}
BROKEN = (
    b"".join(b'{"text": "row", "label": "%s"}\n' % label for label in (b"a", b"b") * 8) + b'{"text": "bro'
)


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    encoders = tmp_path_factory.mktemp("encoders")
    tiny_encoders(encoders)
    data = tmp_path_factory.mktemp("installation") / "data"
    with installation(data, encoders=str(encoders), webhook_allow="127.0.0.1") as made:
        yield made


@pytest.fixture(scope="module")
def client(plait: Installation) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=plait.about["base_url"], api_key=plait.about["api_key"]) as made:
        yield made


def stream(client: openai.OpenAI, job_id: str, **query: Any) -> openai.Stream[FineTuningJobEvent]:
    """The client has no method of its own for this; its `get` can do it."""
    return client.get(
        f"/fine_tuning/jobs/{job_id}/events",
        cast_to=FineTuningJobEvent,
        options={"params": {"stream": True, **query}},
        stream=True,
        stream_cls=openai.Stream[FineTuningJobEvent],
    )


def over(client: openai.OpenAI, job: FineTuningJob) -> FineTuningJob:
    """The job once it is final: each question waits for the next change."""
    for _ in range(20):
        job = client.fine_tuning.jobs.retrieve(job.id, extra_headers={"Prefer": "wait=30"})
        if job.status in FINAL:
            break
    return job


@pytest.fixture(scope="module")
def trained(
    plait: Installation, client: openai.OpenAI, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FineTuningJob, list[FineTuningJobEvent]]:
    """A job of three modalities that was watched to its end, and what the stream told."""
    with tiny_av(tmp_path_factory.mktemp("av"), missing=0.2).open("rb") as data:
        file = client.files.create(file=data, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model="late-fusion",
        training_file=file.id,
        suffix="tiny",
        metadata={"team": "a"},
        extra_body={"multimodal": MULTIMODAL},
    )
    events = list(stream(client, job.id))
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert done.status == "succeeded", (done.error, plait.logs)
    return done, events


@pytest.fixture(scope="module")
def failed(client: openai.OpenAI) -> FineTuningJob:
    """A job whose file has a broken line."""
    file = client.files.create(file=("broken.jsonl", BROKEN), purpose="fine-tune")
    made = client.fine_tuning.jobs.create(model="late-fusion", training_file=file.id, metadata={"bad": "1"})
    return over(client, made)


def test_a_fine_tune_ends_in_a_model_metrics_and_result_files(
    client: openai.OpenAI, trained: tuple[FineTuningJob, Any]
) -> None:
    job, _ = trained

    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    assert 0.0 <= job.metrics["test_accuracy"] <= 1.0  # type: ignore[attr-defined]
    names = {client.files.retrieve(i).filename: i for i in job.result_files}
    assert {"results.csv", "report.json"} <= set(names)
    assert "train_loss" in client.files.content(names["results.csv"]).text
    report = json.loads(client.files.content(names["report.json"]).text)
    assert len(report["test"]["confusion_matrix"]) == 3


def test_its_events_are_streamed_to_the_end_and_listed(
    client: openai.OpenAI, trained: tuple[FineTuningJob, list[FineTuningJobEvent]]
) -> None:
    job, streamed = trained

    listed = list(client.fine_tuning.jobs.list_events(job.id, limit=3))
    rest = list(stream(client, job.id, after=streamed[2].id))

    assert len(streamed) > 4
    assert [event.id for event in streamed] == [event.id for event in listed][::-1]
    assert [event.id for event in rest] == [event.id for event in streamed[3:]]
    assert streamed[-1].message == "The job succeeded; the model is ready."


def test_its_checkpoints_and_curves_are_there(
    client: openai.OpenAI, trained: tuple[FineTuningJob, Any]
) -> None:
    job, _ = trained

    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    told: Any = client.get(f"/fine_tuning/jobs/{job.id}/metrics", cast_to=object)

    assert len({checkpoint.id for checkpoint in checkpoints}) == len(checkpoints) >= 1
    newest = checkpoints[0]
    assert newest.fine_tuning_job_id == job.id
    assert newest.fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-{newest.step_number}"
    assert newest.metrics.step == newest.step_number
    assert told["series"]["train_loss"]["steps"][-1] >= newest.step_number


def test_its_model_is_described_downloaded_and_deleted(
    client: openai.OpenAI, trained: tuple[FineTuningJob, Any]
) -> None:
    name = trained[0].fine_tuned_model
    assert name is not None

    model = client.models.retrieve(name)
    archive = client.get(
        f"/models/{name}/download", cast_to=openai._legacy_response.HttpxBinaryResponseContent
    )
    deleted = client.models.delete(name)

    assert (model.job, len(model.classes)) == (trained[0].id, 3)  # type: ignore[attr-defined]
    with ZipFile(io.BytesIO(archive.read())) as opened:
        assert {"config.json", "model.safetensors", "README.md", "manifest.json"} <= set(opened.namelist())
    assert deleted.deleted
    assert name not in [entry.id for entry in client.models.list()]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(name)


def test_a_failed_job_names_the_line_and_keeps_its_log(client: openai.OpenAI, failed: FineTuningJob) -> None:
    logs: Any = client.get(f"/fine_tuning/jobs/{failed.id}/logs", cast_to=object)

    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "invalid_training_file"
    assert "line 17" in failed.error.message
    assert logs["data"], "the log of a failed job must be there"
    assert "line 17" in logs["data"][-1]["text"]


def test_files_are_made_listed_read_and_deleted(client: openai.OpenAI) -> None:
    file = client.files.create(file=("train.jsonl", b'{"a": 1}\n'), purpose="fine-tune")

    assert file.id in [entry.id for entry in client.files.list(limit=1)]
    assert client.files.retrieve(file.id).bytes == 9
    assert client.files.content(file.id).read() == b'{"a": 1}\n'
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_jobs_are_paged_and_cancelled_without_a_body(client: openai.OpenAI) -> None:
    file = client.files.create(file=("train.jsonl", BROKEN), purpose="fine-tune")
    made = [
        client.fine_tuning.jobs.create(model="late-fusion", training_file=file.id, metadata={"page": "me"})
        for _ in range(3)
    ]

    found = [job.id for job in client.fine_tuning.jobs.list(limit=1, metadata={"page": "me"})]
    last = client.fine_tuning.jobs.create(model="late-fusion", training_file=file.id)
    cancelled = over(client, client.fine_tuning.jobs.cancel(last.id))

    assert found == [job.id for job in made][::-1]
    assert cancelled.status == "cancelled"
    assert "cancelled" in next(iter(client.fine_tuning.jobs.list_events(last.id, limit=1))).message


def test_a_job_is_paused_and_goes_on_to_its_end(plait: Installation, client: openai.OpenAI) -> None:
    rows = b"".join(b'{"text": "row %d", "label": "%s"}\n' % (n, b"ab"[n % 2 :][:1]) for n in range(200))
    file = client.files.create(file=("rows.jsonl", rows), purpose="fine-tune")
    multimodal = {"towers": {"text": {"encoder": TEXT}}, "hyperparameters": {"n_epochs": 500}}
    jobs = client.fine_tuning.jobs
    made = jobs.create(
        model="late-fusion", training_file=file.id, extra_body={"multimodal": multimodal}, seed=1
    )
    told = (event.message for event in stream(client, made.id))
    assert any("Epoch" in message or "step" in message.lower() for message in told), plait.logs

    jobs.pause(made.id)
    last = next(event for event in stream(client, made.id) if event.message.startswith("The job was paused"))
    paused = jobs.retrieve(made.id)
    kept = jobs.checkpoints.list(made.id).data
    resumed = jobs.resume(made.id)
    with pytest.raises(openai.ConflictError) as twice:
        jobs.resume(made.id)
    cancelled = over(client, jobs.cancel(made.id))

    assert "checkpoint" in last.message
    assert (paused.status, len(kept) > 0) == ("paused", True)
    assert (resumed.status, cancelled.status) == ("queued", "cancelled")
    assert twice.value.code == "job_not_paused"


def test_a_retry_after_a_lost_answer_makes_no_second_job(
    plait: Installation, client: openai.OpenAI, failed: FineTuningJob
) -> None:
    port = urlsplit(plait.about["base_url"]).port
    assert port is not None
    with lossy_proxy(port, lose=1) as proxy:
        unlucky = client.with_options(base_url=f"http://127.0.0.1:{proxy.port}/v1")

        job = unlucky.fine_tuning.jobs.create(
            model="late-fusion", training_file=failed.training_file, metadata={"who": "unlucky"}
        )

    assert proxy.lost == 1
    assert [one.id for one in client.fine_tuning.jobs.list(metadata={"who": "unlucky"})] == [job.id]


def test_every_refusal_is_the_clients_own_exception(client: openai.OpenAI, failed: FineTuningJob) -> None:
    jobs = client.fine_tuning.jobs
    key = {"Idempotency-Key": "stock-client"}

    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="plait-wrong").models.list()
    with pytest.raises(openai.NotFoundError) as absent:
        jobs.retrieve("ftjob-none")
    with pytest.raises(openai.ConflictError) as final:
        jobs.cancel(failed.id)
    with pytest.raises(openai.BadRequestError) as wrong:
        jobs.create(model="late-fusion", training_file="file-none", extra_body={"multimodal": {"colour": 1}})
    first = jobs.create(model="late-fusion", training_file=failed.training_file, extra_headers=key)
    again = jobs.create(model="late-fusion", training_file=failed.training_file, extra_headers=key)
    with pytest.raises(openai.UnprocessableEntityError) as reused:
        jobs.create(model="late-fusion", training_file=failed.training_file, seed=7, extra_headers=key)

    assert first.id == again.id
    assert absent.value.code == "job_not_found"
    assert final.value.code == "job_is_final"
    assert wrong.value.param == "multimodal.colour"
    assert reused.value.code == "idempotency_key_reused"
    assert reused.value.request_id


def test_an_endpoint_is_made_tried_and_told_of_a_job(client: openai.OpenAI) -> None:
    receiver = ScriptedServer()
    receiver.on("POST /hook", {})
    hooks, types = client.webhooks, ["fine_tuning.job.cancelled"]
    try:
        made = hooks.create(event_types=types, name="acceptance", url=f"{receiver.base_url}/hook")  # type: ignore[arg-type]
        tried = hooks.test(made.id, event_type="fine_tuning.job.failed")
        file = client.files.create(file=("train.jsonl", BROKEN), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model="late-fusion", training_file=file.id)
        ended = over(client, job)
        fresh = hooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
        hooks.update(made.id, event_types=["fine_tuning.job.failed"])
        later = client.fine_tuning.jobs.create(model="late-fusion", training_file=file.id)
        until(lambda: len(receiver.asked), lambda count: count >= 2, limit_s=60)
    finally:
        receiver.stop()

    sample, told = (hooks.unwrap(a.body, a.headers, secret=made.signing_secret) for a in receiver.asked[:2])
    assert (tried.status_code, tried.success, sample.type) == (200, True, "fine_tuning.job.failed")
    assert (ended.status, told.type, told.data.id) == ("failed", "fine_tuning.job.failed", later.id)
    assert (
        hooks.unwrap(receiver.asked[1].body, receiver.asked[1].headers, secret=fresh.signing_secret).id
        == told.id
    )
    assert [one.id for one in hooks.list()] == [made.id]
    assert hooks.delete(made.id).deleted
    assert list(hooks.list()) == []
