"""Spec -> network of its family, its pretrained parts looked for by their ids."""

from collections.abc import Callable, Mapping
from pathlib import Path

from domain.errors import EngineError
from domain.language import SEEN, LanguageModel
from domain.manifest import Schema
from domain.specs import Multimodal as Spec
from engine.data.column_statistics import Statistics
from engine.models.build import build_model, choose_trained, within
from engine.models.encoders import Encoder
from engine.models.language import Language, open_language
from engine.models.media_tokens import load_media
from engine.models.multimodal import Multimodal
from engine.models.prompts import Prompter
from engine.models.vision_language import VisionLanguage


def open_model(
    spec: Spec,
    schema: Schema,
    classes: int,
    find: Callable[[str], Path],
    statistics: Mapping[str, Statistics] | None = None,
) -> Multimodal:
    """`find` says where a pretrained network lies; all else as in `build_model`."""
    folders = {name: find(t.encoder) for name, t in sorted(spec.towers.items()) if t.encoder}
    if spec.language_model is None:
        return build_model(spec, schema, classes, folders, statistics)
    return _vision_language(spec, spec.language_model.settled(), schema, folders, find)


def _vision_language(
    spec: Spec,
    said: LanguageModel,
    schema: Schema,
    folders: Mapping[str, Path],
    find: Callable[[str], Path],
) -> VisionLanguage:
    for name in spec.towers:
        if name not in schema.columns:
            message = f"the data has no column '{name}'"
            raise EngineError("missing_column", message, param=f"multimodal.towers.{name}")
    language = _language(said, find(said.model))
    seen = [name for name in sorted(spec.towers) if schema.columns[name].type in SEEN]
    encoders = {name: _encoder(spec, said, schema, name, folders[name], language) for name in seen}
    slots = {name: encoder.width // language.width for name, encoder in encoders.items()}
    read = [name for name in sorted(spec.towers) if name not in seen]
    prompter = Prompter(language.words, slots, read, said.max_length)
    _refuse_too_long(said, language, prompter)
    frozen = frozenset(name for name in seen if spec.towers[name].is_frozen)
    dropout = spec.fusion.modality_dropout
    return VisionLanguage(encoders, frozen, language, prompter, dropout, said.max_answer_length)


def _language(said: LanguageModel, folder: Path) -> Language:
    try:
        return open_language(folder, said)
    except EngineError as error:
        raise EngineError(error.code, error.message, param="multimodal.language_model") from error


def _encoder(
    spec: Spec, said: LanguageModel, schema: Schema, name: str, folder: Path, language: Language
) -> Encoder:
    column, tower = schema.columns[name], spec.towers[name]
    try:
        encoder = load_media(folder, column.type, within(tower, column), said.media_tokens, language)
        choose_trained(encoder.network, tower)
        return encoder
    except EngineError as error:
        raise EngineError(error.code, error.message, param=f"multimodal.towers.{name}") from error


def _refuse_too_long(said: LanguageModel, language: Language, prompter: Prompter) -> None:
    longest = prompter.longest + said.max_answer_length
    if language.longest is not None and longest > language.longest:
        message = (
            f"a row may take {longest} tokens and the language model reads {language.longest}; "
            "lower language_model.max_length, max_answer_length or media_tokens"
        )
        raise EngineError("invalid_spec", message, param="multimodal.language_model.max_length")
