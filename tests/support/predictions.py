"""For tests of predictions: a model to ask, and a worker that answers without computing."""

import secrets
from base64 import b64encode
from typing import Any

from db import claims, jobs
from db.session import Database
from db.tables import Job, Model
from domain.job import Lane
from support.door import Door

PREDICTIONS = "/v1/predictions"
LARGE = bytes(range(256)) * 300
USAGE = {"decode_ms": 1.5, "gpu_ms": 2.5, "batch_size": 1}


def registered(database: Database, tenant: str = "a", ref: str = "none", family: str = "late-fusion") -> str:
    """The id of a model of the tenant's."""
    name = f"ft:{family}:{tenant}::{secrets.token_hex(4)}"
    with database.transaction() as session:
        job = jobs.submit(session, jobs.Submission(tenant=tenant, spec={"model": "late-fusion"}))
        session.add(Model(id=name, tenant=tenant, job=job.id, family=family, ref=ref))
    return name


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"


def predict(door: Door, body: dict[str, Any], *, wait: int = 0, headers: Any = None, **more: Any) -> Any:
    """POSTs a prediction, by default without waiting."""
    told = {"Prefer": f"wait={wait}", **(headers or {})}
    return door.send("POST", PREDICTIONS, json=body, headers=told, **more)


def submitted(door: Door, model: str, *inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
    answer = predict(door, {"model": model, "inputs": list(inputs) or [{"text": "x"}], **options})
    assert answer.status_code == 202, answer.text
    return dict(answer.json)


def spec_of(door: Door, prediction_id: str) -> dict[str, Any]:
    """What the worker will be given."""
    with door.database.reading() as session:
        job = session.get_one(Job, prediction_id)
        return dict(job.spec)


def cells(door: Door, model: str, **row: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """How the cells of one row are kept, and the codes of those that cannot be used."""
    spec = spec_of(door, submitted(door, model, row)["id"])
    kept = spec["inputs"][0]
    return kept["values"], {column: flaw["code"] for column, flaw in kept["problems"].items()}


def claimed(door: Door) -> Job:
    job = claims.claim(door.database, Lane.INFER, "worker-1", 60.0)
    assert job is not None
    return job


def answered(door: Door, job: Job, **item: Any) -> None:
    """The worker's success, with the same answer for every row."""
    predictions = [{"id": row["id"], **item} for row in job.spec["inputs"]]
    result = {"model": job.spec["model"], "predictions": predictions, "usage": USAGE}
    with door.database.transaction() as session:
        jobs.move(session, job.id, "job.succeeded", fence=job.fence, message="Done.", result=result)
