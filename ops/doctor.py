"""`plait-server doctor`: looks at this machine and installation, one line a finding."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from typing import Literal

import settings as configuration
from bus.bells import Bells
from db import version as schema
from db.session import Database
from engine.hub.mirror import listing

Verdict = Literal["ok", "warning", "error"]

ROOT_PACKAGES = ("api", "bus", "db", "domain", "egress", "engine", "kernels", "ops", "worker")


@dataclass(frozen=True)
class Finding:
    what: str
    verdict: Verdict
    message: str


def examine(settings: configuration.Settings) -> Iterator[Finding]:
    """Everything a job needs, from the cheap to the dear."""
    checks: list[Callable[[configuration.Settings], Finding]] = [
        _packages,
        _foreign_kernels,
        _data_folder,
        _database,
        _broker,
        _encoders,
        _torch,
        _triton,
    ]
    for check in checks:
        yield check(settings)


def _packages(_: configuration.Settings) -> Finding:
    owners = packages_distributions()
    strangers = {p: owners[p] for p in ROOT_PACKAGES if set(owners.get(p, [])) - {"plait-server"}}
    if strangers:
        return Finding("packages", "error", f"other distributions bring packages of our names: {strangers}")
    return Finding("packages", "ok", f"plait-server {version('plait-server')}")


def _foreign_kernels(_: configuration.Settings) -> Finding:
    from transformers.utils import is_kernels_available

    if is_kernels_available():
        return Finding(
            "kernels", "error", "transformers takes our package `kernels` for another; uninstall the PyPI one"
        )
    return Finding("kernels", "ok", "transformers leaves our package `kernels` alone")


def _data_folder(settings: configuration.Settings) -> Finding:
    settings.data.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.data).free / 1e9
    verdict: Verdict = "warning" if free < 5 else "ok"
    return Finding("data", verdict, f"{settings.data.absolute()} with {free:.0f} GB free")


def _database(settings: configuration.Settings) -> Finding:
    database = Database(settings.database)
    kind = "SQLite" if database.sqlite else "PostgreSQL"
    current = schema.is_current(database)
    database.close()
    if current:
        return Finding("database", "ok", f"{kind}, schema {schema.SCHEMA}")
    return Finding(
        "database", "warning", f"{kind} is absent or not migrated; run `plait-server migrate` or `up`"
    )


def _broker(settings: configuration.Settings) -> Finding:
    if not settings.redis_url:
        return Finding("broker", "ok", "none configured; `plait-server up` starts its own")
    if Bells(settings.redis_url).ready():
        return Finding("broker", "ok", "answers")
    return Finding("broker", "warning", "does not answer; jobs still run, found by polling")


def _encoders(settings: configuration.Settings) -> Finding:
    here = listing(settings.encoders_dir)
    if not here:
        return Finding("encoders", "warning", "the mirror is empty; `plait-server encoders pull` fills it")
    return Finding("encoders", "ok", ", ".join(sorted(here)))


def _torch(_: configuration.Settings) -> Finding:
    import torch

    if importlib.util.find_spec("torchvision") and "+cpu" in torch.__version__:
        return Finding(
            "torch", "warning", "torchvision beside a CPU build of torch breaks transformers; uninstall it"
        )
    if not torch.cuda.is_available():
        return Finding("torch", "warning", f"{torch.__version__}, no GPU: jobs run on the CPU")
    return Finding("torch", "ok", f"{torch.__version__} on {torch.cuda.get_device_name()}")


def _triton(settings: configuration.Settings) -> Finding:
    import torch

    from kernels import tuned

    if not torch.cuda.is_available():
        return Finding("triton", "ok", "no GPU: the fusion ops run on their torch reference")
    if settings.kernels == "torch":
        return Finding("triton", "ok", "switched off by PLAIT_KERNELS=torch")
    if not importlib.util.find_spec("triton"):
        return Finding(
            "triton", "warning", "not installed: the fusion ops run on their torch reference; install triton"
        )
    if not (tuned.FOLDER / f"{tuned.device()}.json").exists():
        message = f"{version('triton')}; kernels run with default configurations, `make tune-kernels` measures this GPU"
        return Finding("triton", "ok", message)
    return Finding(
        "triton", "ok", f"{version('triton')}, configurations measured on {torch.cuda.get_device_name()}"
    )
