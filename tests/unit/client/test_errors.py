"""What an error says, and what it says to do next."""

import pytest

from plait import Client, PlaitAPIError
from support.scripted import Answer, refusal


def caught(client: Client) -> PlaitAPIError:
    with pytest.raises(PlaitAPIError) as raised:
        client.jobs.create({"model": "late-fusion"})
    return raised.value


def test_each_problem_of_a_bad_spec_is_a_line_with_its_path_and_what_is_allowed(client, server):
    answer = refusal(
        400, "invalid_spec", "multimodal.fusion.typo: unknown field (and 2 more)", x_request_id="req-7"
    )
    problems = [
        {
            "path": "multimodal.fusion.typo",
            "code": "unknown_field",
            "message": "unknown field",
            "allowed": ["dim", "type"],
        },
        {"path": "multimodal.loss.x", "message": "unknown field; allowed here: type", "allowed": ["type"]},
        {"path": "seed", "code": "int_parsing", "message": "Input should be a valid integer"},
    ]
    server.on("POST /fine_tuning/jobs", Answer(400, answer.body | {"errors": problems}, answer.headers))

    error = caught(client)

    assert str(error).splitlines() == [
        "The server refused (400 invalid_spec):",
        "  multimodal.fusion.typo: unknown field; allowed here: dim, type",
        "  multimodal.loss.x: unknown field; allowed here: type",
        "  seed: Input should be a valid integer",
        "Correct these fields and send the spec again.",
        "(request req-7)",
    ]
    assert error.errors == problems


def test_an_error_carries_all_that_the_server_said(client, server):
    body = {
        "error": {
            "message": "no such file",
            "type": "invalid_request_error",
            "param": "training_file",
            "code": "not_found",
        }
    }
    server.on("POST /fine_tuning/jobs", Answer(404, body, {"x-request-id": "req-1"}))

    error = caught(client)

    assert (error.status, error.code, error.param, error.request_id) == (
        404,
        "not_found",
        "training_file",
        "req-1",
    )
    assert error.message == "no such file"
    assert "plait files list" in str(error.hint)


def test_a_missing_key_is_told_how_to_set_one(server):
    server.on("POST /fine_tuning/jobs", refusal(401, "invalid_api_key", "no key"))

    with Client(server.base_url) as client:
        error = caught(client)

    assert "authorization" not in server.asked[0].headers
    assert "Set PLAIT_API_KEY" in str(error)
    assert "plait-server up" in str(error)


def test_a_refused_key_is_told_where_it_came_from(server, monkeypatch):
    monkeypatch.setenv("PLAIT_API_KEY", "plait-old")
    server.on("POST /fine_tuning/jobs", refusal(401, "invalid_api_key"))

    with Client(server.base_url) as client:
        error = caught(client)

    assert server.asked[0].headers["authorization"] == "Bearer plait-old"
    assert "The key from PLAIT_API_KEY was refused" in str(error)
    assert "plait-old" not in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, b"<html>nothing here</html>"),
        Answer(200, b"hello"),
        Answer(200, [1]),
        Answer(500, {"error": "x"}),
    ],
)
def test_an_answer_that_is_not_plaits_is_named_with_the_address(client, server, answer):
    server.on("POST /fine_tuning/jobs", answer)

    error = caught(client)

    assert error.code == "not_plait"
    assert server.base_url in str(error)
    assert "ends in /v1" in str(error)


def test_a_redirect_is_not_followed_with_the_key(client, server):
    server.on("POST /fine_tuning/jobs", Answer(307, b"", {"location": f"{server.base_url}/models"}))

    assert caught(client).status == 307
    assert len(server.asked) == 1


def test_an_error_as_json_holds_the_hint(client, server):
    server.on("POST /fine_tuning/jobs", refusal(403, "insufficient_scope", "may not"))

    told = caught(client).as_dict()

    assert told["status"] == 403
    assert told["code"] == "insufficient_scope"
    assert "plait-server keys create" in told["hint"]
