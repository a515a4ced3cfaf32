"""Looks into the cells of a row that towers read: media are opened, and each content gets a digest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from domain.manifest import MODALITIES, Code, ColumnType, Issue
from engine.data.chat_paths import column_at
from engine.data.issues import Issues
from engine.data.lengths import ANSWER, TextLimit
from engine.data.manifest import Dataset, MediaRef, Row, Several, Unreadable
from engine.data.probe import Probed, Undecodable
from engine.data.references import is_data_url, shown
from engine.data.several import together
from engine.data.tables import excerpt

#: A sound may be this much longer than what is read of it before it is worth a word.
_SLACK_S = 0.05
#: Files of which it is remembered what they were: those that many rows share come again soon.
_REMEMBERED = 2**16
_TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class _Look:
    """What one media file turned out to be."""

    digest: bytes
    problem: tuple[Code, str] | None = None
    seconds: float | None = None


class Cells:
    """Looks at rows, one after the other; a file that many rows share is read once."""

    def __init__(
        self,
        dataset: Dataset,
        used: Mapping[str, ColumnType],
        seconds: Mapping[str, float | None],
    ) -> None:
        self._dataset, self._used, self._seconds = dataset, used, seconds
        refused = (i for i in dataset.issues if i.severity == "error" and column_at(i.column) in used)
        #: Lines of which a used cell was refused already.
        self._named = {issue.line for issue in refused}
        self._looks: dict[tuple[str, str, int | None], _Look] = {}

    def look(self, row: Row) -> tuple[bytes | None, list[Issue]]:
        """A digest of what the row's used cells hold, and what is wrong with them.

        None if they hold nothing, or numbers and categories alone: such rows are often equal, and rightly so.
        """
        issues: list[Issue] = []
        whole, is_empty, is_telling = sha256(), True, False
        for name in self._used:
            value = row.values[name]
            content = b""
            if isinstance(value, Several):
                parts = [self._content(name, part, row.line, issues) for part in value.parts]
                content = together([sha256(part).digest() for part in parts])
            elif value is not None:
                content = self._content(name, value, row.line, issues)
            is_empty = is_empty and value is None
            is_telling = is_telling or (value is not None and self._used[name] in MODALITIES)
            # With its length, so that no content can pass for two.
            whole.update(len(content).to_bytes(8) + content)
        # A cell that was refused is no missing one, and has its issue already.
        if is_empty and self._used and row.line not in self._named:
            message = f"The row has none of {', '.join(self._used)}; give it one, or remove it."
            issues.append(Issue(Code.ALL_MODALITIES_MISSING, message, row.line))
        return whole.digest() if is_telling else None, issues

    def _content(self, name: str, value: MediaRef | str | float, line: int, issues: list[Issue]) -> bytes:
        if not isinstance(value, MediaRef):
            return str(value).encode()
        look = self._look(name, value)
        issues += self._media_issues(name, value, look, line)
        return look.digest

    def _media_issues(self, name: str, ref: MediaRef, look: _Look, line: int) -> Iterator[Issue]:
        if look.problem:
            code, words = look.problem
            yield Issue(code, f"'{shown(ref.name)}': {words}.", line, ref.at or name, shown(ref.name))
        elif look.seconds is not None and (most := self._seconds[name]) and look.seconds > most + _SLACK_S:
            message = (
                f"'{shown(ref.name)}' is {look.seconds:.1f} s long and cut to {most:g} s; "
                "shorten it, or raise max_seconds if the encoder reads more."
            )
            yield Issue(Code.TOO_LONG, message, line, ref.at or name, shown(ref.name), severity="warning")

    def _look(self, name: str, ref: MediaRef) -> _Look:
        # A medium in a data: URL is its own name, and not to be remembered whole.
        if is_data_url(ref.name):
            return self._looked(name, ref)
        look = self._looks.get((name, ref.name, ref.place))
        if look is None:
            if len(self._looks) >= _REMEMBERED:
                del self._looks[next(iter(self._looks))]
            look = self._looks[name, ref.name, ref.place] = self._looked(name, ref)
        return look

    def _looked(self, name: str, ref: MediaRef) -> _Look:
        try:
            data = self._dataset.read(ref)
        except Unreadable as error:
            return _Look(ref.name.encode(), (error.code, error.message))
        digest = sha256(data).digest()
        try:
            return _Look(digest, seconds=self._probe(name, data).seconds)
        except Undecodable as error:
            return _Look(digest, (error.code, error.message))

    def _probe(self, name: str, data: bytes) -> Probed:
        return self._dataset.media.probe(data, self._used[name], self._seconds[name])


class Texts:
    """Looks for texts that their encoder reads only the beginning of, some rows at a time."""

    def __init__(self, limits: Mapping[str, TextLimit]) -> None:
        self._limits = limits
        self._held: dict[str, list[tuple[int, str]]] = {name: [] for name in sorted(limits)}
        self.issues = Issues()

    def add(self, row: Row) -> None:
        for name, held in self._held.items():
            value = row.values.get(name) if name != ANSWER else row.label
            for text in value.parts if isinstance(value, Several) else (value,):
                if isinstance(text, str):
                    held.append((row.line, text))
            if len(held) >= _TEXTS_AT_ONCE:
                self._measure(name, held)

    def close(self) -> None:
        for name, held in self._held.items():
            self._measure(name, held)

    def _measure(self, name: str, held: list[tuple[int, str]]) -> None:
        limit = self._limits[name]
        for place in limit.too_long([text for _, text in held]):
            line, text = held[place]
            where = f"text in '{name}'" if name != ANSWER else "answer"
            message = f"Of the {where} only the first {limit.tokens} tokens are read; shorten it, or raise {limit.raised_by}."
            shown = excerpt(text)
            self.issues.append(
                Issue(Code.TEXT_TOO_LONG, message, line, name or None, shown, severity="warning")
            )
        held.clear()
