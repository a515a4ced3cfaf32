"""The reader of documents itself: what it runs, and what it finds out."""

from pathlib import Path

from support import documents


def document(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text)
    return path


def printed(page: Path, folder: Path) -> dict[int, str]:
    done = documents.run(documents.session(page, {}), folder)
    assert done.returncode == 0, done.stdout
    return documents.outputs(done.stdout)


def test_blocks_share_one_shell_and_python_sees_its_folder(tmp_path: Path) -> None:
    page = document(
        tmp_path,
        "```sh\nA=1\n```\n\n```python\nopen('b', 'w').write('2')\n```\n\n```sh\necho $A $(cat b)\n```\n",
    )

    last = list(printed(page, tmp_path).values())[-1]

    assert last.strip() == "1 2"


def test_a_block_that_fails_ends_the_session(tmp_path: Path) -> None:
    page = document(tmp_path, "```sh\nfalse\n```\n\n```sh\ntouch after\n```\n")

    done = documents.run(documents.session(page, {}), tmp_path)

    assert done.returncode != 0
    assert not (tmp_path / "after").exists()


def test_a_line_that_is_left_out_takes_an_empty_block_with_it(tmp_path: Path) -> None:
    page = document(tmp_path, "```sh\nmake up   # stays\n```\n")

    assert documents.session(page, {"make up": "does not end"}) == ""


def test_shown_output_may_differ_in_numbers_and_ids_only(tmp_path: Path) -> None:
    told = "job ftjob-" + "a2" * 12 + " took 3.5 s"
    true = document(tmp_path, f"```sh\necho {told}\n```\n\n```text\njob ftjob-… took 12 s\n```\n")

    assert documents.untrue(true, printed(true, tmp_path)) == []

    false = document(tmp_path, f"```sh\necho {told}\n```\n\n```text\njob ftjob-… lost 12 s\n```\n")

    assert len(documents.untrue(false, printed(false, tmp_path))) == 1


def test_a_shown_answer_must_be_part_of_a_real_one(tmp_path: Path) -> None:
    command = """echo '{"a": 1, "b": [{"c": "x"}, 2], "d": null}'"""
    true = document(tmp_path, f'```sh\n{command}\n```\n\n```json\n{{"a": 7, "b": [{{"c": "x"}}]}}\n```\n')

    assert documents.untrue(true, printed(true, tmp_path)) == []

    for wrong in ('{"a": "1"}', '{"b": [{"c": "y"}]}', '{"d": 0}', '{"e": 1}'):
        false = document(tmp_path, f"```sh\n{command}\n```\n\n```json\n{wrong}\n```\n")
        assert len(documents.untrue(false, printed(false, tmp_path))) == 1, wrong
