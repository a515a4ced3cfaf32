"""Chat lines: `{"messages": [{"role", "content"}]}`, OpenAI's shape for fine-tuning, as columns of a table.

The user's texts joined are the column `text`, the media parts `image`, `audio` and `video`, the assistant's last
answer `label`; what else a line holds stays as it is.
"""

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from domain.manifest import Code, Issue
from engine.data.chat_paths import COLUMNS, part_path
from engine.data.raw_rows import Placed
from engine.data.tables import excerpt

ROLES = ("system", "developer", "user", "assistant")
_PLACEHOLDER = re.compile(r"<(image|audio|video)>")
_FORMAT = re.compile(r"[A-Za-z0-9.+-]{1,20}")
#: A hostile line holds a million bad parts.
_MOST_ISSUES = 20


class _Wrong(Exception):
    """The message says what should stand at the place."""

    def __init__(self, place: str, message: str, value: object = None) -> None:
        super().__init__(message)
        self.place, self.value = place, value


def is_chat(row: Mapping[str, Any]) -> bool:
    """Whether a file that begins with this line is a chat file."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        return False
    return not messages or any("role" in message for message in messages)


def as_columns(row: Mapping[str, Any], line: int) -> tuple[dict[str, Any], list[Issue]]:
    """The line's cells, and what is wrong with it."""
    told = _Told()
    found = _read(row.get("messages"), told)
    issues = [
        Issue(Code.SCHEMA_MISMATCH, f"{wrong}.", line, wrong.place, excerpt(wrong.value))
        for wrong in islice(found, _MOST_ISSUES)
    ]
    # The line is read to its end: its later texts and its answer count, even if no more issues are listed.
    deque(found, maxlen=0)
    media = {f"{name}_file_names": parts for name, parts in told.media.items()}
    own = {"text": "\n".join(told.texts) or None, **media, "label": told.answer}
    cells = {key: cell for key, cell in row.items() if key != "messages"}
    for key in sorted({*COLUMNS.values(), *own} & cells.keys()):
        message = f"'{key}' is made of the messages in a chat file; rename that key, or remove it."
        issues.append(Issue(Code.DUPLICATE_COLUMN, message, line, key))
    issues += _miscounted(told, line) if not issues else ()
    return {**cells, **own}, issues


@dataclass
class _Told:
    """What was read of one line."""

    texts: list[str] = field(default_factory=list)
    #: By column.
    media: dict[str, list[Placed]] = field(default_factory=dict)
    placeholders: Counter[str] = field(default_factory=Counter)
    #: The assistant's last message, if it is the last.
    answer: str | None = None


def _read(messages: Any, told: _Told) -> Iterator[_Wrong]:
    if not isinstance(messages, list) or not messages:
        yield _Wrong("messages", "a line of a chat file holds messages: a list of {role, content}", messages)
        return
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            place, role = (
                f"messages[{number}].role",
                message.get("role") if isinstance(message, dict) else None,
            )
            yield _Wrong(place, f"a message's role is one of {', '.join(ROLES)}", role)
            continue
        texts: list[str] = []
        for part in _parts(message.get("content"), number):
            if isinstance(part, _Wrong):
                yield part
            elif isinstance(part, str):
                texts.append(part)
            elif message["role"] == "assistant":
                yield _Wrong(part[1].at, "an answer is text; put media into the user's messages")
            else:
                told.media.setdefault(part[0], []).append(part[1])
        _note(told, message["role"], texts, is_last=number == len(messages) - 1)


def _note(told: _Told, role: str, texts: list[str], *, is_last: bool) -> None:
    if role == "assistant":
        told.answer = "\n".join(texts).strip() or None if is_last else None
        return
    told.placeholders.update(name for text in texts for name in _PLACEHOLDER.findall(text))
    if role == "user":
        told.texts += texts


def _parts(content: Any, message: int) -> Iterator[str | tuple[str, Placed] | _Wrong]:
    """Texts, media with their columns, and what is neither."""
    if isinstance(content, str) or content is None:
        yield content or ""
    elif not isinstance(content, list):
        yield _Wrong(f"messages[{message}].content", "content is a text, or a list of parts", content)
    else:
        for number, part in enumerate(content):
            try:
                yield _part(part, message, number)
            except _Wrong as wrong:
                yield wrong


def _part(part: Any, message: int, number: int) -> str | tuple[str, Placed]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in COLUMNS:
        what = f"a part's type is one of {', '.join(COLUMNS)}"
        raise _Wrong(part_path(message, number), what, kind)
    place, held = part_path(message, number, kind), part.get(kind)
    if kind == "text":
        if not isinstance(held, str):
            raise _Wrong(place, "a part of text is {type: text, text: ...}", held)
        return held
    name = _sound(held, place) if kind == "input_audio" else _url(held, place, kind)
    return COLUMNS[kind], Placed(name, place)


def _url(held: Any, place: str, kind: str) -> str:
    url = held.get("url") if isinstance(held, dict) else held
    if not isinstance(url, str) or not url:
        what = "a path, a data: URL or an uploaded file's id"
        raise _Wrong(place, f"write {{type: {kind}, {kind}: {{url: ...}}}} with {what}", url)
    return url


def _sound(held: Any, place: str) -> str:
    told = held if isinstance(held, dict) else {}
    data, form, path = told.get("data"), told.get("format"), told.get("path")
    if isinstance(path, str) and path and data is None:
        return path
    if isinstance(data, str) and data and isinstance(form, str) and _FORMAT.fullmatch(form):
        return f"data:audio/{form};base64,{data}"
    what = "{data: base64, format: wav}, or {path: ...} of a file or with an uploaded file's id"
    raise _Wrong(place, f"input_audio is {what}")


def _miscounted(told: _Told, line: int) -> Iterator[Issue]:
    """Texts without placeholders leave it open where the media belong."""
    for name, count in sorted(told.placeholders.items()):
        there = len(told.media.get(name, ()))
        if there != count:
            message = f"The text has <{name}> {count} times and the messages hold {there} such parts; make them equal."
            yield Issue(Code.PLACEHOLDER_COUNT_MISMATCH, message, line, "messages")
