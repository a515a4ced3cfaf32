"""`plait models`: what there is to start from and what was made."""

import re
from pathlib import Path
from typing import Any

import click

from plait.cli import ids, output
from plait.cli.command import Group, connected, json_option
from plait.models import Model


@click.group(cls=Group)
def models() -> None:
    """List, fetch and delete models."""


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List fine-tuned models, newest first, and the families to start from.

    \b
    plait models list
    plait models list --json | jq -r '.[].id'
    """
    found = list(connected().models.list())
    if as_json:
        output.data([model.raw for model in found])
        return
    rows = [(m.id, m.owned_by, output.when(m.created)) for m in found]
    output.table(("ID", "OWNER", "CREATED"), rows)


@models.command()
@click.argument("model_id", shell_complete=ids.models)
@json_option
def show(model_id: str, as_json: bool) -> None:
    """Print what the server knows of a model.

    \b
    plait models show ft:late-fusion:default::1a2b
    """
    model = connected().models.get(model_id)
    if as_json:
        output.data(model.raw)
    else:
        output.fields(_known(model))


def _known(model: Model) -> dict[str, Any]:
    known: dict[str, Any] = {
        "id": model.id,
        "owner": model.owned_by,
        "created": output.when(model.created),
    }
    known |= {name: model.raw.get(name) for name in ("family", "job")}
    known["columns"] = ", ".join(map(str, model.raw.get("columns") or ()))
    known["classes"] = ", ".join(map(str, model.raw.get("classes") or ()))
    metrics = model.raw.get("metrics") or {}
    return known | {name: output.number(value) for name, value in sorted(metrics.items())}


@models.command()
@click.argument("model_id", shell_complete=ids.tuned_models)
@json_option
def delete(model_id: str, as_json: bool) -> None:
    """Delete a fine-tuned model and its weights, for good; its job stays.

    \b
    plait models download ft:late-fusion:default::1a2b    # to keep a copy first
    plait models delete ft:late-fusion:default::1a2b
    """
    connected().models.delete(model_id)
    if as_json:
        output.data({"id": model_id, "object": "model", "deleted": True})
    else:
        output.line(f"{model_id} is deleted.")


@models.command()
@click.argument("model_id", shell_complete=ids.tuned_models)
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write, absent or empty.  [default: made of the model's id, here]",
)
@json_option
def download(model_id: str, out: Path | None, as_json: bool) -> None:
    """Fetch a fine-tuned model as a folder: config.json, model.safetensors and a model card.

    \b
    plait models download ft:late-fusion:default::1a2b
    plait models download ft:late-fusion:default::1a2b -o digits/
    """
    target = out or Path(re.sub(r"[^A-Za-z0-9._-]+", "-", model_id).strip("-.") or "model")
    with output.transfer(target.name) as on_progress:
        folder = connected().models.download(model_id, target, on_progress=on_progress)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if as_json:
        output.data({"id": model_id, "folder": str(folder), "files": names})
    else:
        output.line(f"{model_id} is in {target}: {', '.join(names)}.")
