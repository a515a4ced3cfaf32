"""How much of a text or a sound an encoder reads, told from its folder. Loads no torch."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from domain.errors import EngineError
from domain.language import LanguageModel
from domain.manifest import ColumnType
from domain.specs import Multimodal
from domain.towers import DEFAULT_ENCODERS, Tower

log = logging.getLogger(__name__)

#: Tokens; long enough for most captions. More must be asked for, as cost grows with the square.
DEFAULT_MAX_LENGTH = 512
#: Where neither spec nor encoder sets a limit.
DEFAULT_MAX_SECONDS = 30.0

#: Of a text no more is tokenised than this many bytes for each token that is read.
_BYTES_A_TOKEN = 64
_AT_ONCE = 256

#: In the place of a column's name: the text that is to be written.
ANSWER = ""


@dataclass(frozen=True)
class TextLimit:
    """What a text tower reads of a text: its first `tokens` tokens, its own marks at the ends included."""

    tokenizer: Any
    tokens: int
    #: What must be raised for more to be read.
    raised_by: str = "the tower's max_length if the encoder reads more"

    def too_long(self, texts: Sequence[str]) -> Iterator[int]:
        """The places of the texts that are longer."""
        for start in range(0, len(texts), _AT_ONCE):
            # A token takes at least a byte, so most texts need no second look.
            long = [n for n in range(start, min(start + _AT_ONCE, len(texts))) if self._may_be(texts[n])]
            cut = [texts[n][: self.tokens * _BYTES_A_TOKEN] for n in long]
            for n, encoding in zip(long, self.tokenizer.encode_batch_fast(cut), strict=True):
                if len(encoding.ids) > self.tokens:
                    yield n

    def _may_be(self, text: str) -> bool:
        marks = 8
        return len(text.encode()) + marks > self.tokens


def text_limits(
    spec: Multimodal, types: Mapping[str, ColumnType], find: Callable[[str], Path]
) -> dict[str, TextLimit]:
    """By column; one whose encoder `find` does not know, or that has no tokenizer.json, is left out."""
    if spec.language_model is not None:
        return _language_limits(spec, spec.language_model, types, find)
    limits: dict[str, TextLimit] = {}
    for name in spec.towers or types:
        if types.get(name) is ColumnType.TEXT:
            tower = spec.towers.get(name) or Tower()
            try:
                limit = _limit(find(tower.encoder or DEFAULT_ENCODERS[ColumnType.TEXT]), tower.max_length)
            except EngineError:
                continue
            if limit is not None:
                limits[name] = limit
    return limits


def _language_limits(
    spec: Multimodal, said: LanguageModel, types: Mapping[str, ColumnType], find: Callable[[str], Path]
) -> dict[str, TextLimit]:
    try:
        tokenizer = _tokenizer(find(said.model) / "tokenizer.json")
    except EngineError:
        return {}
    if tokenizer is None:
        return {}
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [name for name in spec.towers or types if types.get(name) is ColumnType.TEXT]
    limits = {name: TextLimit(tokenizer, said.max_length, "language_model.max_length") for name in texts}
    # Its end takes a token, too.
    answer = TextLimit(tokenizer, said.max_answer_length - 1, "language_model.max_answer_length")
    return {**limits, ANSWER: answer}


def _limit(folder: Path, asked: int | None) -> TextLimit | None:
    tokenizer = _tokenizer(folder / "tokenizer.json")
    if tokenizer is None:
        return None
    config = _read(folder / "config.json")
    # Of a two-sided model (CLIP) the text side.
    most = config.get("text_config", config).get("max_position_embeddings")
    limits = (_read(folder / "tokenizer_config.json").get("model_max_length"), most, DEFAULT_MAX_LENGTH)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TextLimit(tokenizer, asked or int(min(n for n in limits if isinstance(n, int | float) and n > 0)))


def _tokenizer(path: Path) -> Any | None:
    """None where there is none, or a broken one: a warning is not worth a failed check."""
    if not path.is_file():
        return None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises Exception itself for whatever it cannot parse.
        log.warning("%s cannot be read (%s); texts are not measured", path, error)
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
