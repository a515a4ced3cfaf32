"""Shows predictions: one in detail, many as a table, or as JSON lines; a row's error always on stderr."""

from collections.abc import Callable, Sequence

from plait.cli import output
from plait.predictions import Modalities, Prediction

_TITLES = ("ID", "ANSWER", "SCORE", "FROM", "NOTE")


def view(*, as_json: bool, quiet: bool, single: bool) -> Callable[[list[Prediction]], None]:
    """How answers are shown, batch after batch."""
    if as_json:
        return _json
    if quiet:
        return _errors
    return _single if single else _Table()


def _json(found: list[Prediction]) -> None:
    for one in found:
        output.json_line(one.raw)
    _errors(found)


def _errors(found: list[Prediction]) -> None:
    for one in found:
        if one.error:
            column = f", column {one.error.param}" if one.error.param else ""
            output.note(f"row {one.id}{column}: {one.error.message} [{one.error.code}]")


def _single(found: list[Prediction]) -> None:
    for one in found:
        if not one.error:
            ranked = ", ".join(f"{label} {score:.4f}" for label, score in one.top)
            output.fields(
                {
                    "answer": answer(one),
                    "score": _score(one),
                    "likeliest": ranked if len(one.top) > 1 else "",
                    "from": _used(one.modalities),
                    "missing": ", ".join(one.modalities.missing),
                    "could not be read": ", ".join(one.modalities.failed),
                    "warnings": "; ".join(one.warnings),
                }
            )
    _errors(found)


class _Table:
    """Rows as they come; the first batch decides how wide the columns are."""

    def __init__(self) -> None:
        self._widths: Sequence[int] = ()

    def __call__(self, found: list[Prediction]) -> None:
        lines = [(one.id, answer(one), _score(one), _used(one.modalities), _remark(one)) for one in found]
        self._widths = output.table(_TITLES, lines, widths=self._widths)
        _errors(found)


def answer(one: Prediction) -> str:
    """The label, the labels, the value, or what was written."""
    if one.error:
        return ""
    if one.text is not None:
        return one.text
    if one.labels is not None:
        return ", ".join(one.labels) or "(none)"
    return one.label if one.label is not None else output.number(one.value)


def _score(one: Prediction) -> str:
    return "" if one.score is None or one.error else f"{one.score:.4f}"


def _used(modalities: Modalities) -> str:
    """`image 61 %, audio 39 %`: the columns, and how much each counted."""
    weights = modalities.weights or {}
    return ", ".join(
        f"{name} {100 * weights[name]:.0f} %" if name in weights else name for name in modalities.used
    )


def _remark(one: Prediction) -> str:
    return f"error: {one.error.code}" if one.error else "; ".join(one.warnings)
