"""Every code that a check can give, each met in a real file that has just that wrong."""

import base64
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from domain.manifest import Code, ColumnType, Issue, Schema
from domain.specs import Multimodal
from engine.data.archive import RATIO_FLOOR_BYTES
from engine.data.check import Report, check
from engine.data.lengths import text_limits
from engine.data.manifest import open_dataset
from support.datasets import png, wav, zip_of

RNG = np.random.default_rng(0)
SOUND = 0.1 * RNG.standard_normal(1600)
Rows = list[dict[str, Any]]
Case = Callable[[Path], Report]


def of(folder: Path, data: bytes | str, name: str = "rows.jsonl", **more: Any) -> Report:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return reported(path, **more)


def reported(
    path: Path, spec: dict[str, Any] | None = None, schema: dict[str, Any] | None = None, **more: Any
) -> Report:
    with open_dataset(path, schema=Schema.model_validate(schema or {})) as dataset:
        return check(dataset, Multimodal.model_validate(spec or {}), **more)


def lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def texts(count: int = 8, **changes: Any) -> Rows:
    """Good rows; `changes` go into the third one."""
    rows: Rows = [{"text": f"row {n}", "label": "ab"[n % 2]} for n in range(count)]
    rows[2] |= changes
    return rows


def chat() -> Rows:
    """Good messages but for the third line's, which speaks of a picture that is not there."""
    said = [f"row {n} <image>" if n == 2 else f"row {n}" for n in range(8)]
    answers = ["ab"[n % 2] for n in range(8)]
    roles = ("user", "assistant")
    return [
        {"messages": [{"role": role, "content": text} for role, text in zip(roles, pair, strict=True)]}
        for pair in zip(said, answers, strict=True)
    ]


def pictures(folder: Path, third: bytes | None = None, name: str = "2.png", **more: Any) -> Report:
    """Good pictures but for the third one's bytes or name."""
    media = {f"{n}.png": png(RNG.integers(0, 255, (8, 8, 3), np.uint8)) for n in range(8)}
    rows: Rows = [{"image_file_name": f"{n}.png", "label": "ab"[n % 2]} for n in range(8)]
    rows[2]["image_file_name"] = name
    return reported(
        zip_of(folder / "p.zip", rows, media | ({name: third} if third is not None else {})), **more
    )


def sounds(folder: Path, third: bytes, **more: Any) -> Report:
    media = {f"{n}.wav": wav(RNG.permutation(SOUND)) for n in range(8)} | {"2.wav": third}
    rows: Rows = [{"audio_file_name": f"{n}.wav", "label": "ab"[n % 2]} for n in range(8)]
    return reported(zip_of(folder / "s.zip", rows, media), **more)


def packed_tightly(folder: Path) -> Report:
    path = folder / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("metadata.jsonl", lines(texts()))
        out.writestr("0.png", bytes(RATIO_FLOOR_BYTES * 2))
    return reported(path)


def word_encoder(folder: Path) -> Path:
    """A tokenizer's folder: a token a word, six of them read."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"max_position_embeddings": 6}')
    return folder


def long_text(folder: Path) -> Report:
    spec = Multimodal.model_validate({"towers": {"text": {"encoder": "a/b"}}})
    path = folder / "rows.jsonl"
    path.write_text(lines(texts(text="one two three four five six seven")))
    with open_dataset(path) as dataset:
        types = {name: column.type for name, column in dataset.schema.columns.items()}
        return check(dataset, spec, text_limits=text_limits(spec, types, lambda _: word_encoder(folder)))


def trained_on_too(folder: Path) -> Report:
    training = of(folder, lines(texts()))
    return of(folder, lines(texts()[2:3]), "valid.jsonl", role="validation", trained=training)


CASES: dict[Code, tuple[Case, int | None]] = {
    Code.EMPTY_FILE: (lambda at: of(at, b"\xef\xbb\xbf \n"), None),
    Code.UNSUPPORTED_FORMAT: (lambda at: of(at, b"%PDF-1.7\0", "rows.pdf"), None),
    Code.ENCODING_ERROR: (lambda at: of(at, lines(texts()).encode().replace(b"row 2", b"caf\xe9")), 3),
    Code.INVALID_JSON: (lambda at: of(at, lines(texts()).replace('"row 2"', "row 2")), 3),
    Code.MISSING_COLUMN: (
        lambda at: of(at, lines(texts()), spec={"towers": {"photo": {"encoder": "a/b"}}}),
        None,
    ),
    Code.DUPLICATE_COLUMN: (lambda at: of(at, "text,text,label\na,b,c\n", "rows.csv"), 1),
    Code.SCHEMA_MISMATCH: (lambda at: of(at, "text,label\n" + "a,b\n" * 3 + "a,b,c\n", "rows.csv"), 5),
    Code.LABEL_MISSING: (lambda at: of(at, lines(texts(label=None))), 3),
    Code.LABEL_TYPE_MISMATCH: (lambda at: of(at, lines(texts(label={"name": "a"}))), 3),
    Code.UNKNOWN_CLASS: (lambda at: of(at, lines(texts(label="c", split="test"))), 3),
    Code.SINGLE_CLASS: (lambda at: of(at, lines([{**row, "label": "a"} for row in texts()])), None),
    Code.TOO_FEW_EXAMPLES: (lambda at: of(at, lines(texts(3))), None),
    Code.CLASS_IMBALANCE: (
        lambda at: of(at, lines([{**r, "label": "ab"[n < 2]} for n, r in enumerate(texts(80))])),
        None,
    ),
    Code.MISSING_MEDIA: (lambda at: pictures(at, name="gone.png"), 3),
    Code.UNREADABLE_MEDIA: (lambda at: pictures(at, png(RNG.integers(0, 9, (8, 8, 3), np.uint8))[:50]), 3),
    Code.UNSUPPORTED_CODEC: (lambda at: sounds(at, wav(SOUND, 400_000)), 3),
    Code.ZERO_DURATION: (lambda at: sounds(at, wav(SOUND[:0])), 3),
    Code.TOO_LONG: (
        lambda at: sounds(
            at, wav(np.tile(SOUND, 20)), spec={"towers": {"audio": {"encoder": "a/b", "max_seconds": 1}}}
        ),
        3,
    ),
    Code.TOO_LARGE: (lambda at: pictures(at, bomb_picture()), 3),
    Code.PATH_ESCAPES_ARCHIVE: (lambda at: pictures(at, name="../../etc/passwd"), 3),
    Code.ZIP_BOMB: (packed_tightly, None),
    Code.URL_NOT_ALLOWED: (lambda at: pictures(at, name="https://example.com/2.png"), 3),
    Code.ALL_MODALITIES_MISSING: (lambda at: of(at, lines(texts(text=""))), 3),
    Code.HIGH_MISSING_RATE: (
        lambda at: of(at, lines([{**r, "note": "x" if n < 3 else None} for n, r in enumerate(texts())])),
        None,
    ),
    Code.UNKNOWN_SPLIT: (lambda at: of(at, lines(texts(split="later"))), 3),
    Code.DUPLICATE_ROW: (lambda at: of(at, lines(texts(text="row 0"))), 3),
    Code.TRAIN_VALID_OVERLAP: (trained_on_too, 1),
    Code.TEXT_TOO_LONG: (long_text, 3),
    Code.HIGH_CARDINALITY: (
        lambda at: of(at, lines([{**r, "n": n + 500} for n, r in enumerate(texts(20))])),
        None,
    ),
    Code.CONSTANT_COLUMN: (lambda at: of(at, lines([{**r, "new": True} for r in texts()])), None),
    Code.PLACEHOLDER_COUNT_MISMATCH: (lambda at: of(at, lines(chat())), 3),
    Code.TOO_MANY_BAD_ROWS: (lambda at: of(at, lines(texts(label=None)), spec={"on_bad_row": "skip"}), None),
}
WARNINGS = {
    Code.CLASS_IMBALANCE,
    Code.TOO_LONG,
    Code.HIGH_MISSING_RATE,
    Code.DUPLICATE_ROW,
    Code.TRAIN_VALID_OVERLAP,
    Code.TEXT_TOO_LONG,
    Code.HIGH_CARDINALITY,
    Code.CONSTANT_COLUMN,
}
#: What a sentence that says what to do has among its words.
DO = re.compile(
    r"\b(add|allow|correct|encode|fill|give|keep|make|must|name|pack|quote|remove|rename|replace|resample|save|send|"
    r"shorten|split|store|upload|write)\b",
    re.IGNORECASE,
)


def bomb_picture() -> bytes:
    """A PNG whose header promises more pixels than anyone would want."""
    data = bytearray(png(np.zeros((4, 4, 3), np.uint8)))
    data[16:24] = (60_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


def only(report: Report, code: Code) -> Issue:
    return next(issue for issue in report.issues if issue.code == code)


def test_every_code_of_a_data_set_is_met_here() -> None:
    # An encoder is not in the file: tests/integration/worker meets that one.
    assert set(CASES) == set(Code) - {Code.ENCODER_UNAVAILABLE}


@pytest.mark.parametrize("code", list(CASES))
def test_a_bad_file_is_named_by_its_code_and_line_with_what_to_do(tmp_path: Path, code: Code) -> None:
    make, line = CASES[code]

    issue = only(make(tmp_path), code)

    assert issue.line == line
    assert issue.severity == ("warning" if code in WARNINGS else "error")
    assert DO.search(issue.message), issue.message


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_media_may_lie_in_the_table_itself_as_data_urls(tmp_path: Path, suffix: str) -> None:
    # Larger than the csv module's own limit of a cell.
    big = [png(RNG.integers(0, 255, (256, 256, 3), np.uint8)) for _ in range(4)]
    rows: Rows = [{"photo": data_url(data), "label": "ab"[n % 2]} for n, data in enumerate(big)]
    csv = "photo,label\n" + "".join(f'"{row["photo"]}",{row["label"]}\n' for row in rows)

    report = of(tmp_path, csv if suffix == "csv" else lines(rows), f"rows.{suffix}")

    assert (report.issues, report.columns) == ([], {"photo": "image"})


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("data:image/png;base64,iVBORw0KG!", "unreadable_media"),
        ("data:image/png;base64", "unreadable_media"),
        ("data:,", "unreadable_media"),
        (data_url(b"no picture"), "unreadable_media"),
        (data_url(png(np.zeros((9, 9, 3), np.uint8))[:45]), "unreadable_media"),
        ("HTTP://example.com/1.png", "url_not_allowed"),
        ("file:///etc/passwd", "url_not_allowed"),
        ("s3://bucket/1.png", "url_not_allowed"),
    ],
)
def test_a_cell_that_is_no_path_is_read_or_refused_for_what_it_is(
    tmp_path: Path, cell: str, code: str
) -> None:
    report = pictures(tmp_path, name=cell)

    assert [(i.line, i.column, i.code) for i in report.errors] == [(3, "image", code)]
    assert len(report.errors[0].value or "") <= 201


def test_the_id_of_an_upload_is_answered_with_what_to_write_instead(tmp_path: Path) -> None:
    issue = pictures(tmp_path, name="file-" + "a2" * 12).errors[0]

    assert issue.code == Code.MISSING_MEDIA
    assert "plait data check" in issue.message
    assert "put the file beside the table" in issue.message


def test_a_group_in_two_splits_is_named_once(tmp_path: Path) -> None:
    rows = [
        {"text": f"row {n}", "label": "ab"[n % 2], "who": "ann" if n > 4 else f"u{n}", "split": "train"}
        for n in range(8)
    ]
    rows[6]["split"] = rows[7]["split"] = "test"

    report = of(tmp_path, lines(rows), schema={"group": "who"})

    assert [(i.line, i.code, i.value) for i in report.issues] == [(7, "train_valid_overlap", "ann")]


def test_the_same_picture_under_two_names_is_one_content(tmp_path: Path) -> None:
    same = png(RNG.integers(0, 255, (8, 8, 3), np.uint8))
    media = {f"{n}.png": png(RNG.integers(0, 255, (8, 8, 3), np.uint8)) for n in range(8)}
    rows: Rows = [{"image_file_name": f"{n}.png", "label": "ab"[n % 2], "split": "train"} for n in range(8)]
    rows[7]["split"] = "validation"

    report = reported(zip_of(tmp_path / "p.zip", rows, media | {"1.png": same, "7.png": same}))

    assert [(i.line, i.code) for i in report.issues] == [(8, "train_valid_overlap")]


def test_a_long_text_costs_no_more_than_its_beginning(tmp_path: Path) -> None:
    (limit,) = text_limits(Multimodal(), {"text": ColumnType.TEXT}, lambda _: word_encoder(tmp_path)).values()

    assert list(limit.too_long(["short", "a " * 2**22, "one two three four five six"])) == [1]


def test_texts_are_not_measured_by_a_tokenizer_that_is_broken(tmp_path: Path) -> None:
    (word_encoder(tmp_path) / "tokenizer.json").write_text("{")

    assert text_limits(Multimodal(), {"text": ColumnType.TEXT}, lambda _: tmp_path) == {}


def test_a_zip_that_is_no_table_is_told_what_to_add(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr("1.png", b"")

    issue = of(tmp_path, buffer.getvalue(), "data.zip").errors[0]

    assert (issue.code, DO.search(issue.message) is not None) == (Code.UNSUPPORTED_FORMAT, True)
