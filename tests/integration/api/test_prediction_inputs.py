"""What goes into a prediction: cells, forms and sizes. A bad cell is its row's problem and never a neighbour's."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.test import encode_multipart

from api import inputs
from support.door import Door
from support.predictions import (
    LARGE,
    PREDICTIONS,
    cells,
    data_url,
    predict,
    registered,
    spec_of,
    submitted,
)

SMALL = b"\x89PNG small"


@pytest.fixture
def model(door: Door) -> str:
    return registered(door.database)


def form(door: Door, *parts: tuple[str, Any], **more: Any) -> Any:
    """POSTs a form; a part's value is text, or bytes that get a file name."""
    fields = [(name, FileStorage(io.BytesIO(v), "x.bin") if isinstance(v, bytes) else v) for name, v in parts]
    boundary, body = encode_multipart(MultiDict(fields))
    return door.send(
        "POST",
        PREDICTIONS,
        data=body,
        content_type=f"multipart/form-data; boundary={boundary}",
        headers={"Prefer": "wait=0"},
        **more,
    )


def kept(door: Door, answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 202, answer.text
    return list(spec_of(door, answer.json["id"])["inputs"])


def blob_of(door: Door, cell: dict[str, Any]) -> bytes:
    (path,) = [path for path in door.blobs() if path.name == cell["blob"]]
    return path.read_bytes()


def test_small_media_lie_in_the_row_and_large_ones_in_the_blob_store(door: Door, model: str) -> None:
    values, problems = cells(door, model, image=data_url(SMALL), sound=data_url(LARGE, "audio/wav"))

    assert problems == {}
    assert values["image"] == {"inline": data_url(SMALL).partition(",")[2]}
    assert values["sound"]["bytes"] == len(LARGE)
    assert blob_of(door, values["sound"]) == LARGE


def test_the_same_bytes_in_two_rows_are_stored_once(door: Door, model: str) -> None:
    rows = [{"image": data_url(LARGE)}, {"image": data_url(LARGE), "other": data_url(LARGE + b".")}]

    first, second = spec_of(door, submitted(door, model, *rows)["id"])["inputs"]

    assert first["values"]["image"] == second["values"]["image"]
    assert len(door.blobs()) == 2


def test_a_row_of_the_database_never_holds_much_media(door: Door, model: str) -> None:
    rows = [{"image": data_url(bytes([n]) * 60_000)} for n in range(40)]

    prediction = submitted(door, model, *rows)

    values = [row["values"]["image"] for row in spec_of(door, prediction["id"])["inputs"]]
    assert sum("inline" in value for value in values) == 17
    assert len(door.blobs()) == 23


def test_a_bad_cell_is_its_own_rows_problem(door: Door, model: str) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "good"},
        {"text": "https://example.com/cat.png"},
        {"text": "good", "image": "data:image/png;base64,@@"},
        {"image": {"file_id": "file-none"}},
        {"image": [[1, 2]]},
    ]

    spec = spec_of(door, submitted(door, model, *rows)["id"])

    codes = [{c: p["code"] for c, p in row["problems"].items()} for row in spec["inputs"]]
    assert codes == [
        {},
        {"text": "url_not_allowed"},
        {"image": "invalid_data_url"},
        {"image": "file_not_found"},
        {"image": "invalid_value"},
    ]
    assert spec["inputs"][2]["values"] == {"text": "good", "image": None}
    assert '{"text": "..."}' in spec["inputs"][1]["problems"]["text"]["message"]


def test_a_file_is_named_by_its_blob_and_kept_until_the_prediction_is_over(door: Door, model: str) -> None:
    file_id = door.file(content=LARGE)
    prediction = submitted(door, model, {"image": {"file_id": file_id}})
    (row,) = spec_of(door, prediction["id"])["inputs"]

    refused = door.send("DELETE", f"/v1/files/{file_id}")
    door.send("POST", f"{PREDICTIONS}/{prediction['id']}/cancel")
    deleted = door.send("DELETE", f"/v1/files/{file_id}")

    assert row["values"]["image"] == {**row["values"]["image"], "file": file_id, "bytes": len(LARGE)}
    assert refused.status_code == 409
    assert refused.json is not None
    assert prediction["id"] in refused.json["error"]["message"]
    assert deleted.status_code == 200


def test_another_tenants_file_is_as_absent_as_none(door: Door, model: str) -> None:
    theirs = door.file(key=door.new_key("b"))

    values, problems = cells(door, model, image={"file_id": theirs})

    assert (values, problems) == ({"image": None}, {"image": "file_not_found"})


def test_a_form_brings_media_as_parts_named_after_their_columns(door: Door, model: str) -> None:
    body = {"model": model, "inputs": [{"id": "a", "text": "x"}], "top_k": 2}

    answer = form(
        door, ("json", json.dumps(body)), ("image", SMALL), ("image[2]", LARGE), ("sound[2]", LARGE)
    )

    first, second, third = kept(door, answer)
    assert first["id"] == "a"
    assert first["values"] == {"text": "x", "image": {"inline": data_url(SMALL).partition(",")[2]}}
    assert second["values"] == {}
    assert blob_of(door, third["values"]["image"]) == LARGE
    assert third["values"]["sound"] == third["values"]["image"]
    assert spec_of(door, answer.json["id"])["top_k"] == 2


def test_a_list_is_several_files_in_one_cell(door: Door, model: str) -> None:
    other = door.send(
        "POST", "/v1/files", data={"file": (io.BytesIO(SMALL), "a.png"), "purpose": "user_data"}
    )
    named = {"file_id": other.json["id"]}
    rows = [
        {"image": [data_url(SMALL), data_url(LARGE), named], "text": ["a", {"text": "b"}]},
        {"image": [data_url(LARGE)], "text": []},
    ]

    spec = spec_of(door, submitted(door, model, *rows)["id"])

    first, second = (row["values"] for row in spec["inputs"])
    small, large, uploaded = first["image"]["several"]
    assert small == {"inline": data_url(SMALL).partition(",")[2]}
    assert blob_of(door, large) == LARGE
    assert (uploaded["file"], spec["files"]) == (other.json["id"], [other.json["id"]])
    assert first["text"] == {"several": ["a", "b"]}
    assert second == {"image": {"several": [large]}, "text": None}
    assert door.send("DELETE", f"/v1/files/{other.json['id']}").status_code == 409


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([None], "no null"),
        (["a", ""], "no empty text"),
        ([["a"]], "no other list"),
        (["a"] * 65, "at most 64"),
        (["a", "https://example.com/x"], "file 2 of 2: the server fetches no addresses"),
        (["a", {"file_id": "file-none"}], "file 2 of 2: there is no file file-none"),
        ([data_url(LARGE), "data:image/png;base64,@@"], "file 2 of 2: the data: URL cannot be read"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_file_among_several_is_its_rows_problem(
    door: Door, model: str, cell: Any, message: str
) -> None:
    spec = spec_of(door, submitted(door, model, {"text": "good"}, {"image": cell})["id"])

    assert message in spec["inputs"][1]["problems"]["image"]["message"]
    assert spec["inputs"][1]["values"] == {"image": None}


def test_a_form_brings_several_files_for_one_cell_at_their_places(door: Door, model: str) -> None:
    body = {"model": model, "inputs": [{"image": [data_url(SMALL), None, data_url(SMALL)]}]}

    answer = form(door, ("json", json.dumps(body)), ("image[0][1]", LARGE), ("image[1][0]", SMALL))

    first, second = (row["values"]["image"]["several"] for row in kept(door, answer))
    assert ["inline" in cell for cell in first] == [True, False, True]
    assert blob_of(door, first[1]) == LARGE
    assert len(second) == 1


def test_a_place_in_a_list_that_nothing_was_sent_for_is_its_rows_problem(door: Door, model: str) -> None:
    (row,) = kept(door, form(door, ("model", model), ("image[0][2]", SMALL)))

    assert row["problems"]["image"]["code"] == "invalid_value"


def test_a_form_needs_no_json(door: Door, model: str) -> None:
    answer = form(
        door,
        ("model", model),
        ("top_k", "3"),
        ("metadata", '{"team": "red"}'),
        ("return_embeddings", "true"),
        ("text", "hello"),
        ("text[1]", "https://example.com"),
        ("image", SMALL),
    )

    first, second = kept(door, answer)
    assert first["values"]["text"] == "hello"
    assert "inline" in first["values"]["image"]
    assert second["problems"]["text"]["code"] == "url_not_allowed"
    spec = spec_of(door, answer.json["id"])
    assert (spec["top_k"], spec["return_embeddings"], answer.json["metadata"]) == (3, True, {"team": "red"})


def test_the_body_of_a_form_may_be_a_file_as_curl_sends_it(door: Door, model: str) -> None:
    body = json.dumps({"model": model, "inputs": [{"text": "x"}]}).encode()

    (row,) = kept(door, form(door, ("json", body), ("image", SMALL)))

    assert set(row["values"]) == {"text", "image"}


def test_a_form_and_its_json_are_one_and_the_same_request(door: Door, model: str) -> None:
    body = {"model": model, "inputs": [{"image": data_url(LARGE)}]}
    first = predict(door, body, headers={"Idempotency-Key": "k"})

    told = door.send(
        "POST",
        PREDICTIONS,
        data={"model": model, "image": (io.BytesIO(LARGE), "x.png")},
        content_type="multipart/form-data",
        headers={"Prefer": "wait=0", "Idempotency-Key": "k"},
    )

    assert told.json is not None
    assert told.json["id"] == first.json["id"]
    assert len(door.blobs()) == 1


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([("image", SMALL), ("image[0]", SMALL)], "inputs.0.image"),
        ([("image[0][1]", SMALL), ("image[0][1]", SMALL)], "inputs.0.image.1"),
        ([("image", SMALL), ("image[0][1]", SMALL)], "inputs.0.image.1"),
        ([("image[0][1]", SMALL), ("image", SMALL)], "inputs.0.image"),
        ([("json", '{"inputs": [{"text": "x"}]}'), ("text", "y")], "inputs.0.text"),
        ([("json", '{"model": "ft:x"}')], "model"),
        ([("image[256]", SMALL)], "image[256]"),
        ([("top_k", "many")], "top_k"),
        ([("text", "nul\0")], "text"),
        ([("", SMALL)], None),
        ([("json", "[]")], None),
        ([], "inputs"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_form_that_contradicts_itself_is_a_400(
    door: Door, model: str, parts: list[tuple[str, Any]], param: str | None
) -> None:
    answer = form(door, ("model", model), *parts)

    assert answer.status_code == 400
    assert answer.json["error"]["param"] == param
    assert door.blobs() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b\r\n",
        b"--b\r\nContent-Disposition: form-data; name=image; filename=x\r\n\r\ncut off",
        b"--b\r\nno headers\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name=\xff\r\n\r\nx\r\n--b--\r\n",
        b"--other\r\n\r\n--other--",
    ],
    ids=lambda body: repr(body)[:40],
)
def test_a_form_that_is_broken_is_a_400_and_leaves_nothing(door: Door, body: bytes) -> None:
    answer = door.send("POST", PREDICTIONS, data=body, content_type="multipart/form-data; boundary=b")

    assert answer.status_code == 400
    assert list((door.settings.data / "blobs").rglob("*")) == []


def test_a_form_with_too_many_parts_is_a_413(door: Door, model: str) -> None:
    answer = form(door, ("model", model), *[(f"image[{n % 256}]", SMALL) for n in range(1100)])

    assert answer.status_code == 413


def test_a_form_that_is_too_large_is_a_413_and_leaves_nothing(door: Door, model: str) -> None:
    answer = form(door, ("model", model), ("image", b"x" * 5_000_000))

    assert answer.status_code == 413
    assert answer.json["error"]["code"] == "too_large"
    assert list((door.settings.data / "blobs").rglob("*")) == []


def test_a_json_body_may_be_much_larger_than_a_specs(door: Door, model: str) -> None:
    data = LARGE * 100

    values, _ = cells(door, model, image=data_url(data))

    assert blob_of(door, values["image"]) == data


def test_a_json_body_over_the_limit_is_a_413(door: Door, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "JSON_LIMIT", 10_000)

    answer = predict(door, {"model": model, "inputs": [{"image": data_url(LARGE)}]})

    assert answer.status_code == 413
    assert answer.json["error"]["code"] == "too_large"


def test_a_large_body_of_tiny_values_is_a_413_before_it_is_read(door: Door, model: str) -> None:
    answer = door.send(
        "POST",
        PREDICTIONS,
        data=b'{"inputs": [' + b"[]," * 1_500_000 + b"0]}",
        content_type="application/json",
    )

    assert answer.status_code == 413


def test_texts_that_are_too_much_together_are_a_413(door: Door, model: str) -> None:
    answer = predict(door, {"model": model, "inputs": [{"text": "x" * 100_000}] * 90})

    assert answer.status_code == 413
    assert "fewer rows" in answer.json["error"]["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_of_another_kind_is_a_415(door: Door, kind: str) -> None:
    assert door.send("POST", PREDICTIONS, data=b"model=x", content_type=kind).status_code == 415


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "\\u0000"}', b'{"inputs": NaN}'])
def test_what_is_no_json_object_is_a_400(door: Door, body: bytes) -> None:
    answer = door.send("POST", PREDICTIONS, data=body, content_type="application/json")

    assert answer.status_code == 400
    assert (answer.json or {})["error"]["code"] == "invalid_json"


def test_a_model_that_is_not_there_stores_nothing(door: Door) -> None:
    answer = predict(door, {"model": "ft:none", "inputs": [{"image": data_url(LARGE)}]})

    assert answer.status_code == 404
    assert door.blobs() == []


def test_a_full_disk_is_a_503_and_no_job(door: Door, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("db.blobs.folder.os.replace", full)

    answer = predict(door, {"model": model, "inputs": [{"image": data_url(LARGE)}]})

    assert answer.status_code == 503
    assert answer.json["error"]["code"] == "no_space"
    assert door.blobs() == []
    assert (door.get(PREDICTIONS).json or {})["data"] == []


def test_nothing_is_left_of_a_form_but_what_is_kept(door: Door, model: str) -> None:
    form(door, ("model", model), ("image", LARGE), ("sound", LARGE))

    assert [path.name for path in Path(door.settings.data / "blobs").glob(".*")] == []
    assert len(door.blobs()) == 1
