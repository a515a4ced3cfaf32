"""What a cell of a prediction's row is: a hostile one is a flaw of its own, and no cell ever raises."""

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidSpec
from domain.predictions import Code, FileRef, Flaw, Predict, read_cell
from domain.shapes import parse

PNG = b"\x89PNG\r\n\x1a\n"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def flaw_of(value: Any) -> Code:
    found = read_cell(value)
    assert isinstance(found, Flaw), found
    return found.code


@given(st.binary(min_size=1), st.sampled_from(["image/png", "audio/wav", "AUDIO/x-wav;rate=8000", ""]))
def test_media_come_out_of_a_data_url_as_they_went_in(data: bytes, kind: str) -> None:
    assert read_cell(f"data:{kind};base64,{b64encode(data).decode()}") == data


@given(JSON | st.text().map(lambda text: "data:" + text) | st.dictionaries(st.just("file_id"), JSON))
def test_no_cell_raises(value: Any) -> None:
    assert isinstance(read_cell(value), str | bool | bytes | FileRef | Flaw | None)


@given(st.text(min_size=1, max_size=50))
def test_what_is_called_text_is_text(text: str) -> None:
    assert read_cell({"text": text}) == text


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, None),
        ("", None),
        (7, "7"),
        (1.5, "1.5"),
        (1e300, "1e+300"),
        (True, True),
        ("data: it was cold, and late", "data: it was cold, and late"),
        ("see https://example.com", "see https://example.com"),
        ("data:,%89PNG%0D%0A%1A%0A", PNG),
        ("data:image/png;base64," + b64encode(PNG).decode()[:4] + "\n" + b64encode(PNG).decode()[4:], PNG),
        ({"file_id": "file-a"}, FileRef("file-a")),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_cells_are_what_they_look_like(value: Any, cell: Any) -> None:
    assert read_cell(value) == cell


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("https://example.com/cat.png", "url_not_allowed"),
        ("file:///etc/passwd", "url_not_allowed"),
        ("S3://bucket/key", "url_not_allowed"),
        ({"url": "http://169.254.169.254/"}, "url_not_allowed"),
        ("data:nonsense", "invalid_data_url"),
        ("data:image/png;base64", "invalid_data_url"),
        ("data:image/png;base64,@@@@", "invalid_data_url"),
        ("data:image/png;base64,iVBORw0KG", "invalid_data_url"),
        ("data:image/png;base64,iVBO\u00e9", "invalid_data_url"),
        ("data:image/png;base64,data:image/png;base64,iVBORw0KGgo=", "invalid_data_url"),
        ("data:image/png" + ";x" * 1_000_000 + ",abc", "invalid_data_url"),
        ("data:text/html;base64,PGI+", "unsupported_format"),
        ("data:application/pdf;base64,JVBERg==", "unsupported_format"),
        ("data:image/png;base64,", "empty_media"),
        ("data:,", "empty_media"),
        ("x" * 100_001, "text_too_long"),
        ({"file_id": "f" * 101}, "file_not_found"),
        ({"file_id": ""}, "file_not_found"),
        ({"file_id": 3}, "invalid_value"),
        ({"file_id": "file-a", "text": "a"}, "invalid_value"),
        ({}, "invalid_value"),
        (["https://example.com"], "invalid_value"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_used_says_so(value: Any, code: str) -> None:
    assert flaw_of(value) == code


@pytest.mark.parametrize("name", ["model_config", "cells", "__class__", "copy", "inputs", "a.b[0]", "é"])
def test_a_column_may_have_any_name(name: str) -> None:
    asked = parse(Predict, {"model": "ft:x", "inputs": [{name: "text"}]})

    assert asked.inputs[0].cells == {name: "text"}


@pytest.mark.parametrize(
    "row",
    [
        {"": "x"},
        {"x" * 201: "x"},
        {"a\0": "x"},
        {"id": ""},
        {"id": "x" * 201},
        {"id": True},
        {"id": ["a"]},
        {f"c{n}": "x" for n in range(65)},
    ],
    ids=lambda row: repr(row)[:30],
)
def test_a_row_that_is_none_refuses_the_request_with_its_number(row: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse(Predict, {"model": "ft:x", "inputs": [{"text": "x"}, row]})

    assert refused.value.problems[0]["path"].startswith("inputs.1")


@pytest.mark.parametrize("stop", ["\nUser:", "x" * 100, ["\nUser:", "END", "a", "b"]])
def test_a_text_at_which_an_answer_ends_may_have_more_letters_than_there_may_be_texts(stop: Any) -> None:
    asked = parse(Predict, {"model": "ft:x", "inputs": [{"text": "x"}], "stop": stop})

    assert asked.writing["stop"] == ([stop] if isinstance(stop, str) else stop)


@pytest.mark.parametrize("stop", ["", "x" * 101, list("abcde"), ["x" * 101], [""]])
def test_more_than_four_texts_or_too_long_ones_end_no_answer(stop: Any) -> None:
    with pytest.raises(InvalidSpec):
        parse(Predict, {"model": "ft:x", "inputs": [{"text": "x"}], "stop": stop})
