"""Asking a model: how rows travel, and what comes back."""

import base64
import email
import json
import resource
from email.message import Message
from typing import Any

import pytest

from plait import LocalFileError, PlaitConnectionError, Ranked, RowError, Usage
from plait.cli.answers import answer as shown
from plait.inputs import MOST_MEDIA, pack
from support.scripted import HANG_UP, Answer, Asked, page, refusal

MODEL = "ft:late-fusion:default::1a2b"


def item(id_: str = "0", **more: Any) -> dict[str, Any]:
    modalities = {"used": ["image"], "missing": ["text"], "failed": [], "weights": {"image": 1.0}}
    return {"id": id_, "label": "7", "score": 0.9, "modalities": modalities | {"weights_by": "gates"}} | more


def run(status: str = "succeeded", *items: dict[str, Any], **more: Any) -> dict[str, Any]:
    done = {"predictions": list(items) or [item()]} if status == "succeeded" else {"predictions": None}
    return {"id": "pred_1", "object": "prediction", "status": status, "model": MODEL, **done, **more}


def parts(asked: Asked) -> dict[str, Message]:
    """The parts of a multipart body by name."""
    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + asked.body)
    return {str(p.get_param("name", header="content-disposition")): p for p in message.get_payload()}


def test_a_list_travels_with_its_large_files_beside_it(client, server, tmp_path):
    (tmp_path / "large.png").write_bytes(b"p" * 70_000)
    server.on("POST /predictions", run())

    client.predictions.create(MODEL, [{"image": [b"small", tmp_path / "large.png", {"file_id": "file-1"}]}])

    sent = parts(server.asked[0])
    small = "data:application/octet-stream;base64," + base64.b64encode(b"small").decode()
    body = json.loads(sent["json"].get_payload(decode=True))
    assert body["inputs"] == [{"image": [small, None, {"file_id": "file-1"}]}]
    assert sent["image[0][1]"].get_payload(decode=True) == b"p" * 70_000


def test_as_many_large_files_as_the_server_takes_are_sent_and_no_more(client, server):
    server.on("POST /predictions", run())
    large = b"p" * 70_000

    with pack([{"image": [large] * MOST_MEDIA}]) as packed:
        most = len(packed.parts)
    with pytest.raises(LocalFileError) as caught:
        client.predictions.create(MODEL, [{"image": [large] * (MOST_MEDIA + 1)}])

    assert most == MOST_MEDIA
    assert (
        caught.value.message == "inputs[0]['image'][1024]: one request takes no more than 1024 large files."
    )
    assert "file_id" in str(caught.value.hint)
    assert server.asked == []


def test_more_files_than_a_process_may_open_are_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "large.png").write_bytes(b"p" * 70_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with pytest.raises(LocalFileError) as caught:
            pack([{"image": [tmp_path / "large.png"] * 200}])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert "ulimit" in caught.value.message
    assert "file_id" in str(caught.value.hint)


def test_text_and_small_media_travel_as_json(client, server, tmp_path):
    (tmp_path / "seven.png").write_bytes(b"picture")
    server.on("POST /predictions", run())

    client.predictions.create(
        MODEL,
        [
            {"id": "a", "image": tmp_path / "seven.png", "audio": b"sound", "text": None},
            {"text": "a seven", "image": {"file_id": "file-1"}, "price": 3.5, "floor": 2, "new": True},
        ],
        top_k=3,
        on_bad_input="mask",
        metadata={"team": "a"},
    )

    [asked] = server.asked
    assert asked.headers["prefer"] == "wait=30"
    assert asked.json == {
        "model": MODEL,
        "inputs": [
            {
                "id": "a",
                "image": "data:image/png;base64," + base64.b64encode(b"picture").decode(),
                "audio": "data:application/octet-stream;base64," + base64.b64encode(b"sound").decode(),
                "text": None,
            },
            {"text": "a seven", "image": {"file_id": "file-1"}, "price": 3.5, "floor": 2, "new": True},
        ],
        "top_k": 3,
        "return_embeddings": False,
        "on_bad_input": "mask",
        "metadata": {"team": "a"},
    }


def test_large_media_travel_as_parts_named_by_column_and_row(client, server, tmp_path):
    sound = bytes(range(256)) * 400
    (tmp_path / "seven.flac").write_bytes(sound)
    server.on("POST /predictions", run())

    client.predictions.create(
        MODEL, [{"text": "x"}, {"voice": tmp_path / "seven.flac", "image": sound[::-1]}]
    )

    sent = parts(server.asked[0])
    assert json.loads(sent["json"].get_payload())["inputs"] == [{"text": "x"}, {}]
    assert sent["voice[1]"].get_payload(decode=True) == sound
    assert sent["voice[1]"].get_content_type() == "audio/flac"
    assert sent["image[1]"].get_payload(decode=True) == sound[::-1]


def test_many_small_media_do_not_make_one_large_json(client, server, tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(60_000))
    server.on("POST /predictions", run())

    client.predictions.create(MODEL, [{"image": tmp_path / "a.png"}] * 100)

    sent = parts(server.asked[0])
    assert len(sent["json"].get_payload()) < 2_000_000
    assert len(sent) > 50


def test_a_request_that_is_tried_again_sends_the_same_bytes_and_key(client, server, tmp_path):
    (tmp_path / "a.wav").write_bytes(bytes(100_000))
    server.on("POST /predictions", refusal(503, "unavailable"), HANG_UP, run())

    client.predictions.create(MODEL, [{"audio": tmp_path / "a.wav"}])

    bodies = [parts(asked)["audio[0]"].get_payload(decode=True) for asked in server.asked]
    assert bodies == [bytes(100_000)] * 3
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1


def test_an_answer_is_told_in_types(client, server):
    told = item(
        top=[{"label": "7", "score": 0.9}, {"label": "1", "score": 0.1}],
        probabilities={"7": 0.9, "1": 0.1},
        embedding=[0.5, 0.25],
        embeddings={"image": [0.5, 0.25]},
        warnings=["text is missing"],
    )
    error = {"code": "unreadable_media", "message": "no picture", "param": "image"}
    usage = {"queue_ms": 1.5, "decode_ms": 2.0, "gpu_ms": 3.0, "batch_size": 2}
    server.on("POST /predictions", run("succeeded", told, {"id": "1", "error": error}, usage=usage))

    done = client.predictions.create(MODEL, [{"text": "a"}, {"image": b"x"}])

    good, bad = done.predictions
    assert (done.is_final, done.usage) == (True, Usage(1.5, 2.0, 3.0, 2))
    assert (good.label, good.score, good.error) == ("7", 0.9, None)
    assert good.top == [Ranked("7", 0.9), Ranked("1", 0.1)]
    assert (good.probabilities, good.embedding) == ({"7": 0.9, "1": 0.1}, [0.5, 0.25])
    assert (good.embeddings, bad.embeddings) == ({"image": [0.5, 0.25]}, None)
    assert (good.modalities.used, good.modalities.weights) == (["image"], {"image": 1.0})
    assert bad.error == RowError("unreadable_media", "no picture", "image")
    assert (bad.label, bad.modalities.used) == (None, [])


def test_a_run_that_takes_longer_is_waited_for(client, server):
    server.on("POST /predictions", Answer(202, run("queued")))
    server.on("GET /predictions/pred_1", run("running"), refusal(503, "unavailable"), run())

    assert client.predictions.create(MODEL, [{"text": "a"}]).status == "succeeded"
    assert [asked.query for asked in server.asked[1:]] == [{"wait": "30"}] * 3


def test_a_server_that_holds_no_answer_is_not_asked_without_a_pause(client, server, waits):
    server.on("POST /predictions", Answer(202, run("queued")))
    server.on("GET /predictions/pred_1", run("queued"), run("queued"), run())

    client.predictions.create(MODEL, [{"text": "a"}])

    assert waits == [1.0, 1.0]


def test_without_wait_the_run_comes_back_as_it_stands(client, server):
    server.on("POST /predictions", Answer(202, run("queued")))

    done = client.predictions.create(MODEL, [{"text": "a"}], wait=False)

    assert (done.id, done.status, done.predictions, done.usage) == ("pred_1", "queued", [], None)
    assert [asked.headers.get("prefer") for asked in server.asked] == ["wait=0"]


def test_a_run_is_fetched_cancelled_and_listed(client, server):
    server.on("GET /predictions/pred_1", run("running"))
    server.on("POST /predictions/pred_1/cancel", run("cancelled"))
    server.on("GET /predictions", page([run("failed", error={"code": "c", "message": "m"})]))

    assert client.predictions.get("pred_1").status == "running"
    assert client.predictions.cancel("pred_1").status == "cancelled"
    assert [each.error["code"] for each in client.predictions.list(limit=1)] == ["c"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (7j, "not complex"),
        (float("nan"), "must be finite"),
        ({"url": "x"}, "a mapping must be"),
        ([[b"x"]], "not list"),
        ({b"x"}, "not set"),
    ],
)
def test_a_value_that_is_none_of_those_is_told_with_its_place(client, server, value, said):
    with pytest.raises(TypeError, match=rf"inputs\[1\]\['image'\].*{said}"):
        client.predictions.create(MODEL, [{"text": "a"}, {"image": value}])

    assert server.asked == []


@pytest.mark.parametrize("count", [0, 257])
def test_a_request_has_1_to_256_rows(client, server, count):
    with pytest.raises(ValueError, match="1 to 256 rows"):
        client.predictions.create(MODEL, [{"text": "a"}] * count)

    assert server.asked == []


def test_media_that_cannot_be_read_are_told_before_any_request(client, server, tmp_path):
    with pytest.raises(LocalFileError, match=r"inputs\[0\]\['image'\].*absent\.png cannot be read"):
        client.predictions.create(MODEL, [{"image": tmp_path / "absent.png"}])

    assert server.asked == []


def test_a_server_that_is_gone_ends_a_request_with_what_to_do(client, server):
    server.stop()

    with pytest.raises(PlaitConnectionError, match="plait-server up"):
        client.predictions.create(MODEL, [{"text": "a"}])

    server.start()


def test_a_model_that_writes_is_told_how_and_answers_in_words(client, server):
    written = {"id": "0", "text": "a seven", "finish_reason": "stop", "modalities": {"used": ["image"]}}
    server.on("POST /predictions", run("succeeded", written))

    made = client.predictions.create(
        MODEL, [{"image": b"png"}], max_tokens=5, temperature=0.5, seed=1, stop=["."]
    )

    (answer,) = made.predictions
    assert (answer.text, answer.finish_reason, answer.label) == ("a seven", "stop", None)
    assert shown(answer) == "a seven"
    body = server.asked[0].json
    assert {name: body[name] for name in ("max_tokens", "temperature", "seed", "stop")} == {
        "max_tokens": 5,
        "temperature": 0.5,
        "seed": 1,
        "stop": ["."],
    }
