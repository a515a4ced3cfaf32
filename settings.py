"""One frozen Settings, read from the environment at the doors of processes and nowhere else."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Every field is read from `PLAIT_<NAME>`; docs/settings.md lists them (a test compares)."""

    #: Folder of everything that is kept: database, blobs, artifacts, caches, encoders.
    data: Path = Path(".plait")
    #: SQLAlchemy URL; empty means SQLite in the data folder.
    database_url: str = field(default="", repr=False)
    #: Redis or Valkey; empty means none (workers then poll).
    redis_url: str = field(default="", repr=False)
    #: Encoders in Hugging Face format; empty means `encoders` in the data folder.
    encoders: str = ""
    #: Folders outside the mirror that a spec may name as an encoder, separated by `:`.
    local_encoders: str = ""
    #: Whether an encoder that is not in the mirror may be fetched from the Hugging Face Hub.
    allow_hub: bool = True
    #: Seconds a worker may be silent before its job is given to another.
    lease_s: float = 60.0
    #: Seconds after the lease's end before a job is reaped.
    grace_s: float = 5.0
    #: Seconds between two looks of an idle worker at the database (with jitter).
    poll_s: float = 3.0
    #: Bucket of an S3-compatible store that keeps files; empty means the data folder does.
    s3_bucket: str = ""
    #: Stands before the names of all objects, for a bucket that others use too.
    s3_prefix: str = ""
    #: Address of the store; empty means Amazon's.
    s3_endpoint_url: str = ""
    #: Address of the store as clients reach it; empty means the same one, `none` that they do not.
    s3_public_endpoint_url: str = ""
    s3_region: str = ""
    #: Empty means what boto3 finds by itself: its own variables, a profile, the machine's role.
    s3_access_key: str = field(default="", repr=False)
    s3_secret_key: str = field(default="", repr=False)
    #: Largest upload in bytes, if it comes in one request.
    max_upload_bytes: int = 2 * 1024**3
    #: Largest file in bytes, if it is uploaded in parts.
    max_file_bytes: int = 20 * 1024**3
    #: Most bytes of each: cached features, decoded media, copies of files from an object store, the shared cache.
    cache_bytes: int = 20 * 1024**3
    #: Seconds that a picture, sound or film may take to be decoded, and more if it is large: a second for each MB and frame.
    decode_timeout_s: float = 60.0
    #: Whether workers on several machines share their caches through the bucket.
    shared_cache: bool = False
    #: Days for which a job that is over is kept; one whose model is there stays with it. 0 keeps all.
    retain_days: float = 90.0
    #: Days for which a row of the audit is kept. 0 keeps all.
    audit_days: float = 365.0
    #: Threads of one API process; three quarters of them may be held by requests that wait.
    api_threads: int = 32
    #: Seconds that a request waits for the database.
    database_timeout_s: float = 3.0
    #: Hosts and networks, separated by commas, to which webhooks may go though they are not public, or by http.
    webhook_allow: str = ""
    #: Seconds that a webhook's receiver has for its whole answer.
    webhook_timeout_s: float = 15.0
    #: `auto`, `torch` or `triton`: which kernels are used.
    kernels: str = "auto"
    #: Folder of the locks that keep two trainings off one GPU; empty means `locks` in the data folder.
    gpu_locks: str = ""
    #: `debug`, `info`, `warning` or `error`.
    log_level: str = "info"
    #: Set by `plait-server up` to its own pid: the process ends with it.
    supervisor: int = 0

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data.absolute() / 'plait.db'}"

    @property
    def encoders_dir(self) -> Path:
        return Path(self.encoders) if self.encoders else self.data / "encoders"

    @property
    def gpu_locks_dir(self) -> Path:
        return Path(self.gpu_locks) if self.gpu_locks else self.data / "locks"

    @property
    def local_roots(self) -> tuple[Path, ...]:
        return tuple(Path(p) for p in self.local_encoders.split(":") if p)

    @property
    def webhook_hosts(self) -> tuple[str, ...]:
        return tuple(word.strip() for word in self.webhook_allow.split(",") if word.strip())


class BadSetting(ValueError):
    """A variable of the environment that cannot be understood."""


def load(env: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment; `overrides` (a command's flags) win."""
    env = os.environ if env is None else env
    values = {
        f.name: _parse(f.name, f.default, env[name])
        for f in fields(Settings)
        if (name := f"PLAIT_{f.name.upper()}") in env
    }
    settings = Settings(**(values | {k: v for k, v in overrides.items() if v is not None}))
    if settings.shared_cache and not settings.s3_bucket:
        raise BadSetting(
            "PLAIT_SHARED_CACHE needs a bucket; set PLAIT_S3_BUCKET, or unset PLAIT_SHARED_CACHE"
        )
    return settings


def visible_gpus() -> str | None:
    """What CUDA lets this process see; None: all there are."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def see_one_gpu(uuid: str) -> None:
    """For this process, before it touches CUDA, there is one GPU only."""
    os.environ["CUDA_VISIBLE_DEVICES"] = uuid


def library_paths() -> dict[str, str]:
    """Where a child that gets nothing else of this environment finds the same shared libraries."""
    names = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
    return {name: os.environ[name] for name in names if name in os.environ}


def environment(settings: Settings) -> dict[str, str]:
    """The environment that makes a child process load these same settings."""
    own = {f"PLAIT_{f.name.upper()}": _text(getattr(settings, f.name)) for f in fields(Settings)}
    return {k: v for k, v in os.environ.items() if not k.startswith("PLAIT_")} | own


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _parse(name: str, default: Any, text: str) -> Any:
    try:
        if isinstance(default, bool):
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
                text.lower()
            ]
        return type(default)(text) if not isinstance(default, Path) else Path(text)
    except (KeyError, ValueError):
        kind = type(default).__name__
        raise BadSetting(f"PLAIT_{name.upper()}={text!r} is not a {kind}; unset it or correct it") from None
