"""A model folder's README.md: a model card in Hugging Face's format. Knows what config.json says, and no more."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from domain.families import reads_tokens
from domain.manifest import ColumnType, Schema

#: Names that a card lists; a model may have thousands of classes.
LISTED = 50
_LONGEST_NAME = 200
_PIPELINES = {
    ColumnType.TEXT: "text-classification",
    ColumnType.IMAGE: "image-classification",
    ColumnType.AUDIO: "audio-classification",
    ColumnType.VIDEO: "video-classification",
}
#: Of models that write.
_WRITING = {
    frozenset({ColumnType.IMAGE}): "image-to-text",
    frozenset({ColumnType.TEXT}): "text-generation",
    frozenset({ColumnType.IMAGE, ColumnType.TEXT}): "image-text-to-text",
    frozenset({ColumnType.AUDIO, ColumnType.TEXT}): "audio-text-to-text",
    frozenset({ColumnType.VIDEO, ColumnType.TEXT}): "video-text-to-text",
}


def model_card(config: Mapping[str, Any]) -> str:
    """The card of a model whose config.json says `config`. What users named is escaped."""
    data = ModelCardData(
        library_name="plait",
        tags=_tags(config),
        base_model=_public_encoders(config),
        pipeline_tag=_pipeline(config),
        metrics=_metric_names(config["metrics"]),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(config)}"))


def _tags(config: Mapping[str, Any]) -> list[str]:
    kinds = sorted({kind for _, kind, _ in _towers(config)})
    return ["plait", "multimodal", config["spec"]["family"], config["spec"]["task"], *kinds]


def _public_encoders(config: Mapping[str, Any]) -> list[str] | None:
    """Hub ids only: a folder of the machine that trained says nothing elsewhere."""
    ids = {id_ for _, _, id_ in _towers(config)} | {config.get("language_model", {}).get("model", "")}
    return sorted(id_ for id_ in ids if id_ and not id_.startswith("/")) or None


def _pipeline(config: Mapping[str, Any]) -> str | None:
    """The Hub has no word for several modalities, or for other tasks over one."""
    kinds = [ColumnType(kind) for _, kind, _ in _towers(config)]
    if config["spec"]["task"] == "contrastive":
        return "feature-extraction"
    if "language_model" in config:
        return _WRITING.get(frozenset(kinds))
    single = len(kinds) == 1 and config["spec"]["task"] != "regression"
    return _PIPELINES.get(kinds[0]) if single else None


def _metric_names(metrics: Mapping[str, float]) -> list[str] | None:
    words = {"accuracy": "accuracy", "f1_macro": "f1", "mae": "mae", "rmse": "rmse", "r2": "r_squared"}
    return [public for own, public in words.items() if f"test_{own}" in metrics] or None


def _towers(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Column, its type and its encoder; numbers and categories have none."""
    columns = config["schema"]["columns"]
    return [(n, columns[n]["type"], t.get("encoder") or "") for n, t in sorted(config["towers"].items())]


def _body(config: Mapping[str, Any]) -> str:
    spec = config["spec"]
    unencoded = "read as text" if "language_model" in config else "trained here"
    towers = "\n".join(
        f"| {_plain(n)} | {kind} | {_plain(e) or unencoded} |" for n, kind, e in _towers(config)
    )
    return f"""# A {spec["task"]} model of Plait

{_how(config)}

| column | type | encoder |
|---|---|---|
{towers}

The weights of frozen encoders are **not** in this folder, only their names and fingerprints; a changed
encoder is refused. What was trained is in `model.safetensors`.

## Use

```python
from engine import infer
model = infer.load('this/folder', encoders='folder/of/encoders')
print(model.predict([{_example(config)}]))
```

The encoders are fetched with `plait-server encoders pull`.

{_metrics(config["metrics"])}{_classes(config["classes"])}"""


def _how(config: Mapping[str, Any]) -> str:
    spec = config["spec"]
    family, fusion = spec["family"], spec["fusion"]["type"]
    subset = "Any subset of the columns is enough"
    if spec["task"] == "contrastive":
        return (
            "Each column goes through its encoder and a projection into one space, where what belongs together is near\n"
            f"(loss `{spec['loss']['type']}`). Vectors have length 1; a row's is the mean of its columns'. {subset}."
        )
    if "language_model" in config:
        made = (
            f"A language model ({_plain(config['language_model']['model'])}) reads the texts and, through encoders and "
            "projectors, the media, and writes\nthe answer."
        )
    elif reads_tokens(family):
        made = (
            f"{family} (`{fusion}`): each column goes through its encoder, attention over the tokens of all makes one vector, "
            "and a head\nanswers."
        )
    else:
        made = f"Late fusion (`{fusion}`): each column goes through its encoder, the vectors become one, and a head\nanswers."
    stands_in = (
        "a generator imputes a missing one's vector from the others (family `mm-gan`)"
        if family == "mm-gan"
        else "a learned token stands in for a missing one"
    )
    return f"{made} {subset} for a prediction; {stands_in}."


def _example(config: Mapping[str, Any]) -> str:
    """A row for each column; `ascii` makes of any name a literal of one line, which cannot leave the block."""
    words = {
        "text": "'some text'",
        "image": "open('a.png', 'rb').read()",
        "audio": "open('a.wav', 'rb').read()",
        "video": "open('a.mp4', 'rb').read()",
        "number": "3.5",
    }
    told, sounds = config["towers"], Schema.model_validate(config["schema"]).sounds
    # A film's sound is read from the film.
    given = {sounds.get(name, name): "video" if name in sounds else kind for name, kind, _ in _towers(config)}
    cells = [
        f"{name!a}: {_seen(told[name]) if kind == ColumnType.CATEGORY else words[kind]}"
        for name, kind in given.items()
    ]
    return "{" + ", ".join(cells) + "}"


def _seen(tower: Mapping[str, Any]) -> str:
    """A value that training saw, as a literal of one line; a language model reads any word."""
    return ascii(next(iter(tower.get("statistics", {}).get("values", ())), "a word"))


def _metrics(metrics: Mapping[str, float]) -> str:
    lines = "\n".join(f"| {_plain(name)} | {value:.4g} |" for name, value in sorted(metrics.items()))
    about = "`test_` was measured once, on rows that took no part in training or choosing."
    return f"## Metrics\n\n{about}\n\n| metric | value |\n|---|---|\n{lines}\n" if lines else ""


def _classes(classes: Sequence[str]) -> str:
    if not classes:
        return ""
    more = f" and {len(classes) - LISTED} more (see `config.json`)" if len(classes) > LISTED else ""
    return f"\n## Classes\n\n{', '.join(_plain(name) for name in classes[:LISTED])}{more}\n"


_ESCAPED = str.maketrans({c: f"\\{c}" for c in string.punctuation if c not in "-,'"})


def _plain(name: str) -> str:
    """As text only: no markup, link, HTML or second line comes out of a name."""
    line = "".join(c if c.isprintable() else " " for c in name[:_LONGEST_NAME])
    return line.translate(_ESCAPED)
