"""A job whose `model` is one of the tenant's: it starts from its weights."""

import pytest

from db.tables import Job
from support.door import Door
from support.predictions import registered


def test_a_job_may_start_from_a_model_of_the_tenants_own(door: Door) -> None:
    model = registered(door.database)

    answer = door.submit({"model": model, "multimodal": {"task": "contrastive"}})

    assert answer.status_code == 200, answer.text
    told = answer.json or {}
    assert told["model"] == model
    with door.database.reading() as session:
        assert session.get_one(Job, told["id"]).spec["multimodal"]["family"] == "clip"


@pytest.mark.parametrize("owner", ["b", None])
def test_a_model_of_another_tenant_is_as_absent_as_a_deleted_one(door: Door, owner: str | None) -> None:
    door.new_key("b")
    model = registered(door.database, owner or "a")
    if owner is None:
        assert door.send("DELETE", f"/v1/models/{model}").status_code == 200

    answer = door.submit({"model": model})

    assert answer.status_code == 404
    error = (answer.json or {})["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert error["message"] == f"No model {model}."


def test_a_name_that_is_neither_a_family_nor_a_model_is_refused(door: Door) -> None:
    answer = door.submit({"model": "gpt-4"})

    assert answer.status_code == 400
    assert "a model of yours" in (answer.json or {})["error"]["message"]
