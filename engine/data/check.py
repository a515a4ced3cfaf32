"""Reads every row and every media header, and lists every problem. Torch-free: the cpu lane runs it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from domain.manifest import MODALITIES, Code, ColumnType, Issue, Split, errors_in
from domain.specs import Multimodal
from engine.data import decode
from engine.data.archive import escapes
from engine.data.manifest import Dataset, MediaRef, Row

#: Fewer rows than this cannot be split and learned from.
MIN_ROWS = 4


@dataclass
class Report:
    """What a data set is and what is wrong with it."""

    rows: int
    columns: dict[str, ColumnType]
    classes: list[str] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)

    @property
    def errors(self) -> list[Issue]:
        return errors_in(self.issues)


def class_name(label: object) -> str:
    """The class that a label names: `3`, `"3"` and `True` are `3`, `3` and `true`."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def check(
    dataset: Dataset,
    spec: Multimodal,
    *,
    role: str = "training",
    classes: Sequence[str] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Every problem of `dataset` for `spec`. `classes` are the training file's, for the other roles."""
    types = {name: column.type for name, column in dataset.schema.columns.items()}
    report = Report(rows=len(dataset.rows), columns=types, issues=list(dataset.issues))
    if not dataset.rows:
        if not report.issues:
            report.issues.append(Issue(code=Code.EMPTY_FILE, message="The file has no rows."))
        return report
    used = _used_columns(spec, types, report.issues)
    for row in dataset.rows:
        if should_stop():
            return report
        _check_row(dataset, row, used, report.issues)
    _check_labels(dataset, role, classes, report)
    _check_repeats(dataset.rows, used, report.issues)
    report.splits = dict(Counter(row.split or role_split(role) for row in dataset.rows))
    return report


def role_split(role: str) -> str:
    """The split of a row that names none, by its file's role."""
    return {"validation": Split.VALIDATION, "test": Split.TEST}.get(role, Split.TRAIN)


def _used_columns(
    spec: Multimodal, types: dict[str, ColumnType], issues: list[Issue]
) -> dict[str, ColumnType]:
    if not spec.towers:
        used = {name: kind for name, kind in types.items() if kind in MODALITIES}
        if not used:
            message = "There is no text, image or audio column."
            issues.append(Issue(code=Code.MISSING_COLUMN, message=message))
        return used
    for name in spec.towers:
        if types.get(name) not in MODALITIES:
            has = ", ".join(f"{n} ({k})" for n, k in sorted(types.items())) or "none"
            message = f"The tower '{name}' needs a text, image or audio column of that name; there is: {has}."
            param = f"multimodal.towers.{name}"
            issues.append(Issue(code=Code.MISSING_COLUMN, message=message, column=name, param=param))
    return {name: types[name] for name in spec.towers if types.get(name) in MODALITIES}


def _check_row(dataset: Dataset, row: Row, used: dict[str, ColumnType], issues: list[Issue]) -> None:
    for name, kind in used.items():
        value = row.values.get(name)
        if isinstance(value, MediaRef):
            problem = _media_problem(dataset, value, kind)
            if problem is not None:
                code, words = problem
                message = f"'{value.name[:200]}': {words}."
                issues.append(
                    Issue(code=code, message=message, line=row.line, column=name, value=value.name[:200])
                )
    if used and all(row.values.get(name) is None for name in used):
        message = f"None of {', '.join(used)} is there; remove the row or give it one."
        issues.append(Issue(code=Code.ALL_MODALITIES_MISSING, message=message, line=row.line))


def _media_problem(dataset: Dataset, ref: MediaRef, kind: ColumnType) -> tuple[Code, str] | None:
    if escapes(ref.name):
        return Code.PATH_ESCAPES_ARCHIVE, "the path leads out of the upload; write it relative to the table"
    if not dataset.has(ref):
        return Code.MISSING_MEDIA, "there is no such file in the upload; add it or write null"
    try:
        data = dataset.read(ref)
        decode.probe_image(data) if kind is ColumnType.IMAGE else decode.probe_audio(data)
    except decode.Undecodable as error:
        return error.code, error.message
    except OSError as error:
        return Code.UNREADABLE_MEDIA, str(error)
    return None


def _check_labels(dataset: Dataset, role: str, classes: Sequence[str] | None, report: Report) -> None:
    label = dataset.schema.label
    if label is None:
        message = "There is no column 'label', 'target' or 'labels'; add one or name it in the schema."
        report.issues.append(Issue(code=Code.LABEL_MISSING, message=message))
        return
    for row in dataset.rows:
        _check_label(row, label, report.issues)
    trained = [r for r in dataset.rows if (r.split or role_split(role)) == Split.TRAIN]
    found = {class_name(r.label) for r in trained if _is_class(r.label)}
    report.classes = sorted(classes if classes is not None else found)
    if role == "training":
        _check_training(report.classes, trained, report.issues)
    if report.classes:
        _check_known(dataset.rows, label, set(report.classes), report.issues)


def _is_class(label: object) -> bool:
    return isinstance(label, (str, int))


def _check_label(row: Row, label: str, issues: list[Issue]) -> None:
    if row.label is None:
        message = f"'{label}' is empty; every row needs one."
        issues.append(Issue(code=Code.LABEL_MISSING, message=message, line=row.line, column=label))
    elif not _is_class(row.label):
        message = f"'{label}' must be a word or a whole number for classification."
        value = repr(row.label)[:80]
        issues.append(
            Issue(code=Code.LABEL_TYPE_MISMATCH, message=message, line=row.line, column=label, value=value)
        )


def _check_training(classes: list[str], trained: list[Row], issues: list[Issue]) -> None:
    if len(trained) < MIN_ROWS:
        message = f"{len(trained)} training rows are too few; at least {MIN_ROWS} are needed."
        issues.append(Issue(code=Code.TOO_FEW_EXAMPLES, message=message))
    elif len(classes) == 1:
        message = f"Every training row is '{classes[0]}'; there is nothing to tell apart."
        issues.append(Issue(code=Code.SINGLE_CLASS, message=message))


def _check_known(rows: list[Row], label: str, known: set[str], issues: list[Issue]) -> None:
    for row in rows:
        if _is_class(row.label) and class_name(row.label) not in known:
            name = class_name(row.label)
            message = f"'{name}' does not occur in the training rows."
            issues.append(
                Issue(code=Code.UNKNOWN_CLASS, message=message, line=row.line, column=label, value=name[:80])
            )


def _check_repeats(rows: list[Row], used: dict[str, ColumnType], issues: list[Issue]) -> None:
    seen: dict[object, int] = {}
    for row in rows:
        content = (tuple(row.values.get(name) for name in used), str(row.label))
        if content in seen:
            message = f"The same as line {seen[content]}."
            issues.append(Issue(code=Code.DUPLICATE_ROW, message=message, line=row.line, severity="warning"))
        else:
            seen[content] = row.line
