"""Every shell and Python block of the documents is run, in order, against a real installation."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import documents
from support.installation import Installation, installation
from support.stack import ROOT

#: Lines that no test can run where tests run, and where they are seen to instead.
NOT_RUN = {
    "make setup": "continuous integration begins with it: every make target here needs it",
    "make check": "continuous integration runs it",
    "make test": "continuous integration runs it; it holds this test",
    "make test-slow": "continuous integration runs it; it holds this test",
    "make chaos": "takes minutes; its short form is tests/chaos",
    "make chaos DATABASE=sqlite SEED=7 JOBS=60 FAULTS=20": "takes minutes, too",
    "make demo": "tests/acceptance/test_demo.py runs the program that it starts",
    "make demo-video": "tests/acceptance/test_demo_video.py runs the program that it starts",
    "make docs": "would write into the checkout; a guard compares its pages with what is committed",
    "make up": "does not end; every document is run beside an installation that is up",
    "pip install ./client": "`make setup` installs the same folder, and the test must not change what it runs on",
}
#: Documents that a test of their own runs, block by block, since they take a folder of data for granted.
RUN_ELSEWHERE = {"client/README.md": "tests/acceptance/test_client.py"}
RUNNABLE = {
    name: path
    for path in documents.DOCUMENTS
    if (name := path.relative_to(ROOT).as_posix()) not in RUN_ELSEWHERE and documents.session(path, NOT_RUN)
}


@pytest.fixture(scope="module")
def plait(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    data = tmp_path_factory.mktemp("installation") / "data"
    data.mkdir()
    (data / "encoders").symlink_to(ROOT / ".plait" / "encoders")
    # docs/webhooks.md and docs/api.md have receivers on this machine.
    with installation(data, webhook_allow="127.0.0.1") as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RUNNABLE)
def test_a_document_does_what_it_says_when_it_is_copied_into_a_shell(
    name: str, plait: Installation, tmp_path: Path
) -> None:
    folder = documents.scratch(tmp_path / "plait", plait.data)

    done = documents.run(documents.session(RUNNABLE[name], NOT_RUN), folder)

    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{plait.logs}"
    assert documents.untrue(RUNNABLE[name], documents.outputs(done.stdout)) == []


def test_what_is_not_run_is_a_target_of_make_or_a_command_and_is_still_shown() -> None:
    targets = {line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if ":" in line}
    shown = {
        command
        for path in documents.DOCUMENTS
        for block in documents.blocks(path)
        if block.word == "sh"
        for command in documents.commands(block)
    }

    assert set(NOT_RUN) - shown == set()
    assert {c.split()[1] for c in NOT_RUN if c.startswith("make ")} <= targets


def test_continuous_integration_runs_the_targets_that_the_documents_leave_to_it() -> None:
    steps = (ROOT / ".ci" / "run").read_text().splitlines()

    assert {f"make {target}" for target in ("check", "test", "test-slow")} <= set(steps)


def test_the_other_runner_of_a_document_reads_it() -> None:
    assert [
        test for name, test in RUN_ELSEWHERE.items() if Path(name).name not in (ROOT / test).read_text()
    ] == []


def test_every_block_says_what_it_is() -> None:
    known = {"sh", "python", "text", "json", "yaml", "toml", ""}
    unknown = [
        f"{path.name}:{block.line}: {block.word}"
        for path in documents.DOCUMENTS
        for block in documents.blocks(path)
        if block.word not in known
    ]

    assert unknown == []
