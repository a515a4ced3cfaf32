"""Reference pages made from what they describe: the spec from its models, the command lines from their options.

`python -m ops.reference docs` (that is `make docs`) writes them; a test fails when one is stale.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import AliasChoices, BaseModel

import manage
from domain.specs import FineTune
from domain.tasks import METRICS, VALID_LOSS, Task
from plait import cli

_NOTE = "<!-- Made by `make docs`; do not edit. -->\n"

_SPEC = f"""{_NOTE}
# The spec of a fine-tune

What `POST /v1/fine_tuning/jobs` takes as JSON, and what `plait jobs create -f` takes as YAML or JSON. Unknown fields are
refused, and the answer lists what is allowed there. Every problem of a spec is told at once, with its path.
`multimodal` is Plait's own part; the rest has OpenAI's names.
"""

_CLI = f"""{_NOTE}
# Command lines

`plait` speaks to a server over HTTP. `plait-server` is the operator's: it runs on the server's machine.
"""


def pages() -> dict[str, str]:
    """The text of every page by its file name."""
    return {
        "spec.md": spec_page(FineTune),
        "cli.md": cli_page({"plait": cli.main, "plait-server": manage.main}),
    }


def spec_page(shape: type[BaseModel]) -> str:
    """One table for `shape` and for each shape in it, in the order in which they are met."""
    return "\n".join([_SPEC, *(_section(inner) for inner in _shapes(shape)), _metrics()])


def _metrics() -> str:
    """What `metric_for_best_model` may name."""
    rows = [f"| {task} | {', '.join(f'`{n}`' for n in (*METRICS[task], VALID_LOSS))} |" for task in Task]
    head = "## Metrics\n\nBy task; the first is taken where the spec says `auto`.\n"
    return "\n".join([head, "| task | metrics |", "|---|---|", *rows, ""])


def _shapes(shape: type[BaseModel]) -> list[type[BaseModel]]:
    """`shape` and all in it, each once."""
    met: list[type[BaseModel]] = []

    def meet(part: Any) -> None:
        if isinstance(part, type) and issubclass(part, BaseModel) and part not in met:
            met.append(part)
            for field in part.model_fields.values():
                meet(field.annotation)
        for inner in get_args(part):
            meet(inner)

    meet(shape)
    return met


def _section(shape: type[BaseModel]) -> str:
    about = (shape.__doc__ or "").strip()
    head = f"## {shape.__name__}\n\n{about}\n" if about else f"## {shape.__name__}\n"
    table = ["| field | value | default | what it is |", "|---|---|---|---|", *_rows(shape)]
    return "\n".join([head, *table, ""])


def _rows(shape: type[BaseModel]) -> Iterator[str]:
    schema = shape.model_json_schema()
    # A shape that holds itself or is held twice is told by reference.
    described = schema.get("properties") or schema["$defs"][shape.__name__]["properties"]
    for name, field in shape.model_fields.items():
        told = field.alias or name
        others = [a for a in _aliases(field.validation_alias) if a != told]
        what = described.get(told) or described[_aliases(field.validation_alias)[0]]
        about = (field.description or "").strip()
        also = f"also `{'`, `'.join(others)}`" if others else ""
        cells = [
            f"`{told}`",
            value_words(what, schema.get("$defs", {})),
            "**required**" if field.is_required() else _default(field.get_default(call_default_factory=True)),
            "; ".join(part for part in (about, also) if part),
        ]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _aliases(alias: Any) -> list[str]:
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [alias] if isinstance(alias, str) else []


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "none"
    return f"`{json.dumps(value)}`".replace('"', "") if value not in ({}, [], ()) else "empty"


def value_words(schema: Mapping[str, Any], named: Mapping[str, Any]) -> str:
    """What a value may be, in words: `integer, 1 to 10000`."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        inner = named[name]
        return (
            value_words(inner, named) if "enum" in inner or "const" in inner else f"[{name}](#{name.lower()})"
        )
    if "anyOf" in schema:
        return " or ".join(value_words(s, named) for s in schema["anyOf"] if s.get("type") != "null")
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "anything")
    if kind == "object":
        inner = schema.get("additionalProperties", True)
        of = value_words(inner, named) if isinstance(inner, dict) else "anything"
        return f"name → {of}{_at_most(schema, 'maxProperties', 'entries')}"
    if kind == "array":
        return f"list of {value_words(schema.get('items', {}), named)}{_at_most(schema, 'maxItems', 'items')}"
    if kind == "string":
        pattern = f" like `{schema['pattern']}`" if "pattern" in schema else ""
        return f"string{pattern}{_at_most(schema, 'maxLength', 'characters')}"
    return "null" if kind == "null" else f"{kind}{_range(schema)}"


def _at_most(schema: Mapping[str, Any], key: str, unit: str) -> str:
    return f", at most {schema[key]} {unit}" if key in schema else ""


def _range(schema: Mapping[str, Any]) -> str:
    ends = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    told = [f"{word} {schema[key]:,.12g}" for key, word in ends.items() if key in schema]
    return " " + " ".join(told) if told else ""


def cli_page(programs: Mapping[str, click.Command]) -> str:
    """The help of every command, as a terminal shows it."""
    parts = [_CLI]
    for name, program in programs.items():
        for context in _commands(program, _context(program, name)):
            depth = "##" if context.parent is None else "###"
            parts.append(f"{depth} {context.command_path}\n\n```text\n{_help(context)}\n```\n")
    return "\n".join(parts)


def _commands(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _commands(inner, _context(inner, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    width = {"terminal_width": 100, "max_content_width": 100}
    return click.Context(command, info_name=name, parent=parent, **{**command.context_settings, **width})


def _help(context: click.Context) -> str:
    return context.command.get_help(context).strip()


def write(folder: Path) -> None:
    for name, text in pages().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
