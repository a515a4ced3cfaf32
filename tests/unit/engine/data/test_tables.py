"""Lines of JSONL and CSV: the good are kept, each bad one is named."""

import io

import pytest

from engine.data import formats
from engine.data.tables import MAX_LINE_BYTES, Table, excerpt


def read_table(data: bytes, kind: str) -> Table:
    return formats.read_table(io.BytesIO(data), kind)


def named(table: Table) -> list[tuple[int | None, str]]:
    return [(issue.line, str(issue.code)) for issue in table.issues]


def test_a_broken_line_does_not_hide_the_others() -> None:
    table = read_table(b'{"a": 1}\n{"a": \n{"a": 3}\n[1]\n"x"\n', "jsonl")

    assert [(row.line, row.cells) for row in table.rows] == [(1, {"a": 1}), (3, {"a": 3})]
    assert named(table) == [(2, "invalid_json"), (4, "invalid_json"), (5, "invalid_json")]


def test_a_line_that_breaks_off_is_told_by_the_character_where_it_does() -> None:
    table = read_table(b'{"a": 1\n{"a": 1\r\n', "jsonl")

    assert ["at character 8;" in issue.message for issue in table.issues] == [True, True]


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_do_no_harm() -> None:
    table = read_table(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}', "jsonl")

    assert [(row.line, row.cells["a"]) for row in table.rows] == [(1, 1), (3, 2)]
    assert table.issues == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"a": NaN}', "invalid_json"),
        (b'{"a": -Infinity}', "invalid_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a": "\xff"}', "encoding_error"),
        (b'{"a": "\\ud800"}', "encoding_error"),
        (b'{"a": ["x", "\\ud800"]}', "encoding_error"),
        (b'{"a": ["x", ["\\u0000"]]}', "encoding_error"),
        (b'{"a": {"\\u0000": 1}}', "encoding_error"),
        (b'{"a": "\\u0000"}', "encoding_error"),
        (b'{"a": 1, "a": 2}', "duplicate_column"),
        (b'{"a": "' + b"x" * MAX_LINE_BYTES + b'"}', "too_large"),
    ],
)
def test_a_line_that_json_or_unicode_does_not_allow_is_named(line: bytes, code: str) -> None:
    table = read_table(b'{"a": 0}\n' + line + b'\n{"a": 3}\n', "jsonl")

    assert named(table) == [(2, code)]
    assert [row.line for row in table.rows] == [1, 3]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_utf_16_is_named_instead_of_guessed(kind: str) -> None:
    table = read_table('{"a": 1}\n'.encode("utf-16"), kind)

    assert named(table) == [(None, "encoding_error")]


def test_a_csv_cell_may_hold_commas_quotes_and_line_breaks() -> None:
    table = read_table(b'text,label\r\n"a, ""b""\nc",x\r\nd,y\r\n', "csv")

    assert [(row.line, row.cells["text"]) for row in table.rows] == [(2, 'a, "b"\nc'), (4, "d")]


def test_each_bad_csv_row_is_named_and_the_next_is_read() -> None:
    table = read_table(b'a,b\n1,2,3\n1\n"x"y,2\n\xe9,1\n\x00,1\n5,6\n', "csv")

    assert [(row.line, row.cells) for row in table.rows] == [(7, {"a": "5", "b": "6"})]
    assert named(table) == [
        (2, "schema_mismatch"),
        (3, "schema_mismatch"),
        (4, "schema_mismatch"),
        (5, "encoding_error"),
        (6, "encoding_error"),
    ]


def test_a_quote_that_is_never_closed_is_named_where_it_opens() -> None:
    table = read_table(b'a,b\n1,2\n"3,4\n5,6\n', "csv")

    assert named(table) == [(3, "schema_mismatch")]


def test_two_csv_columns_of_one_name_are_named() -> None:
    table = read_table(b"a,b,a\n1,2,3\n", "csv")

    assert [(i.line, i.code, i.column) for i in table.issues] == [(1, "duplicate_column", "a")]
    assert list(table.rows) == []


def test_an_excerpt_is_short_and_can_be_stored_anywhere() -> None:
    assert excerpt("a\0b\ud800\n" + "x" * 500).startswith("a\\x00b\\ud800\\nxxx")
    assert len(excerpt("x" * 500)) == 200
    assert excerpt([[[]]]) == "a list"


def test_a_line_that_is_nested_deeply_is_named_as_it_could_not_be_read_back() -> None:
    for depth in (60, 500, 987, 5000):
        table = read_table(b'{"a": ' + b"[" * depth + b"]" * depth + b"}\n", "jsonl")
        assert named(table) == [(1, "invalid_json")]

    assert len(read_table(b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}\n", "jsonl").rows) == 1


def test_a_line_without_end_is_not_held_whole() -> None:
    table = read_table(b"a,b\n1,2\n" + b"," * (MAX_LINE_BYTES + 10), "csv")

    assert (len(table.rows), named(table), table.is_whole) == (1, [(3, "too_large")], False)


def test_a_long_line_that_begins_with_blanks_is_not_passed_over() -> None:
    table = read_table(b" " * (MAX_LINE_BYTES + 10) + b'{"a": 1}\n{"a": 2}\n', "jsonl")

    assert named(table) == [(1, "too_large")]
    assert [row.line for row in table.rows] == [2]
