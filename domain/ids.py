"""Identifiers: a prefix that tells what it is, and 120 random bits."""

import secrets
from base64 import b32encode
from hashlib import sha256


def new_id(prefix: str) -> str:
    """`new_id("ftjob-")` -> `ftjob-k3v…` (24 lower-case letters and digits)."""
    return prefix + b32encode(secrets.token_bytes(15)).decode().lower()


def model_id(family: str, tenant: str, suffix: str | None, job_id: str) -> str:
    """`ft:late-fusion:<tenant>:<suffix>:<8 characters of the job>`, as the field writes them.

    Made of the job alone, so that a job finished by its second claim names the same model.
    """
    return f"ft:{family}:{tenant}:{suffix or ''}:{job_id.split('-', 1)[1][:8]}"


def checkpoint_id(family: str, tenant: str, suffix: str | None, job_id: str, step: int) -> str:
    """`ft:late-fusion:<tenant>:<suffix>:<8 characters of the job>:ckpt-step-<step>`."""
    return f"{model_id(family, tenant, suffix, job_id)}:ckpt-step-{step}"


def new_key() -> str:
    """A fresh API key: `plait-` and 256 random bits."""
    return "plait-" + secrets.token_urlsafe(32)


def key_hash(key: str) -> str:
    """What is stored of a key. A plain hash is enough: the key is random, not a password."""
    return sha256(key.encode()).hexdigest()
