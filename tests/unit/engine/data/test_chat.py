"""Chat files: told by their content, every message and every medium in them checked, and classes learned from answers."""

import base64
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import EngineError
from domain.ids import new_id
from domain.manifest import Code
from domain.specs import Multimodal
from engine.data.archive import Unreadable
from engine.data.check import Report, check
from engine.data.formats.chat import ROLES, as_columns
from engine.data.manifest import MediaRef, Several, open_dataset
from engine.data.preview import preview
from engine.data.splits import open_splits
from support.datasets import png, tone, wav, zip_of

PICTURE = png(np.zeros((4, 4, 3), np.uint8))
SOUND = wav(tone(0, np.random.default_rng(0)))
MEDIA = {"a.png": PICTURE, "b.png": png(np.ones((4, 4, 3), np.uint8)), "s.wav": SOUND}
CLASSES = {"task": "classification"}
INLINE = {"data": base64.b64encode(SOUND).decode(), "format": "wav"}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def chat(*user: Any, answer: Any = "cat", **more: Any) -> dict[str, Any]:
    content = user[0] if len(user) == 1 and isinstance(user[0], str) else list(user)
    messages = [{"role": "system", "content": "Say what it is."}, {"role": "user", "content": content}]
    return {"messages": [*messages, *([{"role": "assistant", "content": answer}] if answer else [])], **more}


def good(count: int = 6) -> list[dict[str, Any]]:
    return [chat(f"what is {n}", answer=("cat", "dog")[n % 2]) for n in range(count)]


def packed(folder: Path, *rows: Any) -> Path:
    return zip_of(folder / "chat.zip", rows, MEDIA)


def checked(folder: Path, *rows: Any, **spec: Any) -> Report:
    with open_dataset(packed(folder, *rows)) as dataset:
        return check(dataset, Multimodal.model_validate(CLASSES | spec))


def errors(report: Report) -> list[tuple[int | None, str | None, str]]:
    return [(i.line, i.column, str(i.code)) for i in report.errors]


def test_messages_become_columns_of_texts_media_and_answers(tmp_path: Path) -> None:
    rows = [
        chat(
            text("look"),
            image("a.png"),
            text("here"),
            image("b.png"),
            {"type": "input_audio", "input_audio": INLINE},
        ),
        chat("only words", answer=[text("dog")], split="test", id="r2"),
    ]

    with open_dataset(packed(tmp_path, *rows)) as dataset:
        first, second = dataset.rows

        assert dataset.is_chat
        assert {n: str(c.type) for n, c in dataset.schema.columns.items()} == {
            "text": "text",
            "image": "image",
            "audio": "audio",
        }
        assert first.values["text"] == "look\nhere"
        assert first.values["image"] == Several(
            (
                MediaRef("a.png", at="messages[1].content[1].image_url"),
                MediaRef("b.png", at="messages[1].content[3].image_url"),
            )
        )
        assert isinstance(first.values["audio"], MediaRef)
        assert dataset.read(first.values["audio"]) == SOUND
        assert (first.label, second.label, second.split, second.id) == ("cat", "dog", "test", "r2")
        assert dataset.issues == []


def test_without_a_word_on_its_task_a_chat_file_fails_and_says_what_there_is(tmp_path: Path) -> None:
    report = checked(tmp_path, *good(), task="auto")

    (issue,) = report.errors
    assert (issue.param, issue.line) == ("multimodal.task", None)
    assert "generation" in issue.message
    assert "classification, multilabel, regression" in issue.message
    with ExitStack() as files, pytest.raises(EngineError, match="generation"):
        open_splits(files, Multimodal(), packed(tmp_path, *good()), None, None, 0)


def test_answers_that_are_classes_are_learned_once_the_task_says_so(tmp_path: Path) -> None:
    rows = [*good(), chat(text("look"), image("a.png"), answer="dog")]

    report = checked(tmp_path, *rows)
    with ExitStack() as files:
        splits = open_splits(
            files, Multimodal.model_validate(CLASSES), packed(tmp_path, *rows), None, None, 0
        )

    assert report.errors == []
    assert report.classes == ["cat", "dog"]
    assert splits.goal.classes == ["cat", "dog"]
    assert len(splits.all) == 7


@pytest.mark.parametrize(
    ("content", "place", "code"),
    [
        ([image("gone.png")], "messages[1].content[0].image_url", Code.MISSING_MEDIA),
        ([text("x"), image("../a.png")], "messages[1].content[1].image_url", Code.PATH_ESCAPES_ARCHIVE),
        ([image("https://example.com/a.png")], "messages[1].content[0].image_url", Code.URL_NOT_ALLOWED),
        ([image("data:image/png;base64,QQ==")], "messages[1].content[0].image_url", Code.UNREADABLE_MEDIA),
        ([image("s.wav")], "messages[1].content[0].image_url", Code.UNREADABLE_MEDIA),
        ([image(new_id("file-"))], "messages[1].content[0].image_url", Code.MISSING_MEDIA),
        (
            [{"type": "input_audio", "input_audio": {"path": "a.png"}}],
            "messages[1].content[0].input_audio",
            Code.UNREADABLE_MEDIA,
        ),
        (
            [{"type": "input_audio", "input_audio": {"data": "@@", "format": "wav"}}],
            "messages[1].content[0].input_audio",
            Code.UNREADABLE_MEDIA,
        ),
        (
            [{"type": "video_url", "video_url": {"url": "a.png"}}],
            "messages[1].content[0].video_url",
            Code.UNREADABLE_MEDIA,
        ),
        ([image("")], "messages[1].content[0].image_url", Code.SCHEMA_MISMATCH),
        ([{"type": "image_url"}], "messages[1].content[0].image_url", Code.SCHEMA_MISMATCH),
        (
            [{"type": "input_audio", "input_audio": {"data": "QQ=="}}],
            "messages[1].content[0].input_audio",
            Code.SCHEMA_MISMATCH,
        ),
        ([{"type": "tool"}], "messages[1].content[0]", Code.SCHEMA_MISMATCH),
        ([7], "messages[1].content[0]", Code.SCHEMA_MISMATCH),
        ([{"type": ["text"]}], "messages[1].content[0]", Code.SCHEMA_MISMATCH),
        ([{"type": "text", "text": 7}], "messages[1].content[0].text", Code.SCHEMA_MISMATCH),
        ({"text": "x"}, "messages[1].content", Code.SCHEMA_MISMATCH),
        ([text("<image> and <image>"), image("a.png")], "messages", Code.PLACEHOLDER_COUNT_MISMATCH),
        ([text("<audio>"), image("a.png")], "messages", Code.PLACEHOLDER_COUNT_MISMATCH),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_is_wrong_in_a_message_is_named_by_line_and_place(
    tmp_path: Path, content: Any, place: str, code: Code
) -> None:
    bad = chat(answer="dog")
    bad["messages"][1]["content"] = content

    assert (7, place, str(code)) in errors(checked(tmp_path, *good(), bad))


def test_placeholders_may_be_there_once_for_each_medium_or_not_at_all(tmp_path: Path) -> None:
    rows = [
        chat(text("<image> or <image>"), image("a.png"), image("b.png"), answer="dog"),
        chat(text("this"), image("a.png")),
    ]

    assert checked(tmp_path, *good(), *rows).errors == []


@pytest.mark.parametrize(
    ("messages", "place", "code"),
    [
        ([], "messages", "schema_mismatch"),
        ("hello", "messages", "schema_mismatch"),
        (None, "messages", "schema_mismatch"),
        (
            [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}],
            "messages[1].role",
            "schema_mismatch",
        ),
        ([["user", "x"]], "messages[0].role", "schema_mismatch"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role", "schema_mismatch"),
        (
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": [image("a.png")]}],
            "messages[1].content[0].image_url",
            "schema_mismatch",
        ),
        ([{"role": "user", "content": "x"}], "label", "label_missing"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}], "label", "label_missing"),
        (
            [{"role": "assistant", "content": "cat"}, {"role": "user", "content": "x"}],
            "label",
            "label_missing",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_messages_that_are_no_conversation_with_an_answer_are_named(
    tmp_path: Path, messages: Any, place: str, code: str
) -> None:
    assert (7, place, code) in errors(checked(tmp_path, *good(), {"messages": messages}))


def test_a_key_that_the_messages_make_is_named(tmp_path: Path) -> None:
    assert (7, "label", "duplicate_column") in errors(checked(tmp_path, *good(), chat("x", label="dog")))


def test_masking_hides_the_medium_that_is_broken_and_keeps_the_words(tmp_path: Path) -> None:
    rows = [*good(), chat(text("look"), image("gone.png"))]

    report = checked(tmp_path, *rows, on_bad_row="mask", max_bad_fraction=0.5)

    assert report.errors == []
    assert report.bad.masked == {"image": {7}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(ROLES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "image_url", "url", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.fixed_dictionaries({"role": JSON, "content": JSON}), min_size=1, max_size=3) | JSON)
def test_no_messages_raise(messages: Any) -> None:
    cells, issues = as_columns({"messages": messages, "id": 1}, 5)

    assert cells["id"] == 1
    assert all(issue.line == 5 for issue in issues)


def test_a_hostile_line_of_bad_parts_gives_a_few_issues(tmp_path: Path) -> None:
    bad = chat("x")
    bad["messages"][1]["content"] = [7] * 100_000

    assert len([i for i in checked(tmp_path, *good(), bad).issues if i.line == 7]) < 25


@pytest.mark.parametrize("bad", [19, 20, 21, 50])
def test_a_line_is_read_to_its_end_however_many_of_its_parts_are_bad(bad: int) -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": [image("")] * bad},
        {"role": "user", "content": [text("third"), image("a.png")]},
        {"role": "assistant", "content": "yes"},
    ]

    cells, issues = as_columns({"messages": messages}, 1)

    assert len(issues) == min(bad, 20)
    assert (cells["text"], cells["label"]) == ("first\nthird", "yes")
    assert [placed.name for placed in cells["image_file_names"]] == ["a.png"]


def test_a_table_with_a_column_of_that_name_is_no_chat_file(tmp_path: Path) -> None:
    with open_dataset(packed(tmp_path, {"messages": ["a", "b"], "text": "x", "label": "y"})) as dataset:
        assert not dataset.is_chat
        assert [str(i.code) for i in dataset.issues] == ["schema_mismatch"]


def test_a_chat_file_is_previewed_by_its_columns(tmp_path: Path) -> None:
    with open_dataset(packed(tmp_path, chat(text("look"), image("a.png"), image("gone.png")))) as dataset:
        (row,) = preview(dataset)

    assert row["label"] == "cat"
    assert (row["cells"]["image"]["files"], row["cells"]["image"]["width"]) == (2, 4)
    assert json.dumps(row)


def test_media_of_a_chat_file_may_be_uploaded_files(tmp_path: Path) -> None:
    known = new_id("file-")
    path = tmp_path / "chat.jsonl"
    rows = [*good(), chat(text("look"), image(known)), chat(text("look"), image(new_id("file-")))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    with open_dataset(path, uploads=lambda ids: {i: lambda: PICTURE for i in ids if i == known}) as dataset:
        report = check(dataset, Multimodal.model_validate(CLASSES))
        with pytest.raises(Unreadable, match="a bare table"):
            dataset.read(MediaRef("a.png"))

    assert errors(report) == [(8, "messages[1].content[1].image_url", "missing_media")]
