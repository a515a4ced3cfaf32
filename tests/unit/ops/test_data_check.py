"""`plait-server data check`: data are looked through before anything is uploaded."""

import json
import os
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manage import main
from support.datasets import tiny_av


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["data", "check", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny data set, unpacked."""
    target = tmp_path / "set"
    with zipfile.ZipFile(tiny_av(tmp_path)) as packed:
        packed.extractall(target)
    return target


def rewritten(folder: Path, line: int, **changes: object) -> None:
    table = folder / "metadata.jsonl"
    lines = table.read_text().splitlines()
    lines[line - 1] = json.dumps(json.loads(lines[line - 1]) | changes)
    table.write_text("\n".join(lines))


def test_a_good_zip_and_its_folder_are_in_order(tmp_path: Path, folder: Path) -> None:
    for path in (tmp_path / "tiny.zip", folder):
        result = run(path)

        assert result.exit_code == 0
        assert "48 rows (9 test, 30 train, 9 validation)" in result.output
        assert "0 errors, 0 warnings" in result.output


def test_a_program_gets_every_issue_and_an_exit_code(folder: Path) -> None:
    rewritten(folder, 3, image_file_name="images/gone.png")

    result = run(folder, "--json")

    (issue,) = json.loads(result.stdout)["issues"]
    assert (issue["line"], issue["column"], issue["code"]) == (3, "image", "missing_media")
    assert issue["severity"] == "error"
    assert result.exit_code == 1


def test_a_reader_gets_a_table_with_the_errors_first(folder: Path) -> None:
    rewritten(folder, 9, **json.loads((folder / "metadata.jsonl").read_text().splitlines()[0]))
    rewritten(folder, 12, label=None)

    result = run(folder)

    assert result.output.index("label_missing") < result.output.index("duplicate_row")
    assert "1 error, 2 warnings" in result.output
    assert result.exit_code == 1


def test_errors_stand_by_their_lines_whatever_found_them(folder: Path) -> None:
    rewritten(folder, 12, image_file_name="images/gone.png")
    rewritten(folder, 5, label=None)
    rewritten(folder, 9, text={"no": "text"})

    found = json.loads(run(folder, "--json").stdout)["issues"]

    assert [i["line"] for i in found if i["severity"] == "error"] == [5, 9, 12]


def test_of_numbers_and_categories_it_is_told_which_become_towers(tmp_path: Path) -> None:
    rows = [{"price": n * 7 % 30, "always": 3, "label": "ab"[n % 2]} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    result = run(tmp_path / "rows.jsonl")

    assert result.exit_code == 0
    assert "columns: price (number), always (number)\ntowers: price\n" in result.output
    assert "constant_column" in result.output


def test_warnings_alone_are_no_failure(folder: Path) -> None:
    rewritten(folder, 9, **json.loads((folder / "metadata.jsonl").read_text().splitlines()[0]))

    assert run(folder).exit_code == 0


@pytest.mark.parametrize("name", ["link.png", "links/passwd", "../outside.png"])
def test_nothing_is_read_from_outside_the_folder(folder: Path, name: str) -> None:
    (folder.parent / "outside.png").write_bytes((folder / "images" / "0.png").read_bytes())
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    (folder / "links").symlink_to("/etc")
    rewritten(folder, 3, image_file_name=name)

    result = run(folder, "--json")

    assert [i["code"] for i in json.loads(result.stdout)["issues"]] == ["path_escapes_archive"]


def test_a_table_that_is_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "metadata.jsonl").rename(tmp_path / "elsewhere.jsonl")
    (folder / "metadata.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")

    assert json.loads(run(folder, "--json").stdout)["issues"][0]["code"] == "path_escapes_archive"


def test_a_link_inside_the_folder_is_as_good_as_a_file(folder: Path) -> None:
    (folder / "link.png").symlink_to(folder / "images" / "2.png")
    rewritten(folder, 3, image_file_name="link.png")

    assert run(folder).exit_code == 0


def test_a_pipe_in_the_folder_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    rewritten(folder, 3, image_file_name="pipe.png")

    assert "missing_media" in run(folder).output


def test_spec_and_schema_come_from_files(folder: Path, tmp_path: Path) -> None:
    spec, schema = tmp_path / "job.yaml", tmp_path / "schema.json"
    spec.write_text(
        "model: late-fusion\nmultimodal:\n  towers: {image: {encoder: a/b}}\n  on_bad_row: skip\n"
    )
    schema.write_text('{"label": "nowhere"}')
    rewritten(folder, 3, audio_file_name="sounds/gone.wav")

    assert run(folder, "--spec", spec).exit_code == 0
    assert "nowhere" in run(folder, "--spec", spec, "--schema", schema).output


@pytest.mark.parametrize(
    ("text", "word"), [("towers: {image: {encodr: x}}", "encodr"), ("[1", "YAML"), ("3", "object")]
)
def test_a_spec_that_cannot_be_read_is_refused_with_its_reason(folder: Path, text: str, word: str) -> None:
    spec = folder.parent / "job.yaml"
    spec.write_text(text)

    result = run(folder, "--spec", spec)

    assert (result.exit_code, word in result.output) == (1, True)


def test_a_users_words_are_shown_as_they_are(folder: Path) -> None:
    rewritten(folder, 3, label="[red]a[/red]")

    assert "[red]a[/red]" in run(folder).output


def test_a_users_words_cannot_steer_the_terminal(folder: Path) -> None:
    rewritten(folder, 3, label="\x1b[31ma", **{"odd\x1b[2J": "text"})

    result = run(folder)

    assert "\x1b" not in result.output
    assert r"\x1b[31ma" in result.output


def test_an_empty_folder_is_told_what_it_lacks(tmp_path: Path) -> None:
    result = run(tmp_path, "--json")

    assert "metadata.jsonl" in json.loads(result.stdout)["issues"][0]["message"]
    assert result.exit_code == 1
