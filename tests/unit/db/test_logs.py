"""Logs of jobs: only what may be shown is shown, from where only logs can be."""

from pathlib import Path

import pytest

from db.logs import MOST_CLAIMS, Logs


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def write(logs: Logs, text: bytes, fence: int = 1) -> None:
    path = logs.make("ftjob-a", fence)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)


@pytest.mark.parametrize(
    "secret",
    ["plait-" + "x" * 43, "hf_" + "A" * 34, "AKIA" + "B" * 16, "s3cret%21"],
)
def test_secrets_are_not_told(logs: Logs, secret: str) -> None:
    write(logs, f"connecting to postgresql://me:{secret}@host/db with Bearer {secret}\n".encode())

    (told,) = logs.tail("ftjob-a", 10)

    assert secret not in told.text
    assert "postgresql://[secret]@host/db" in told.text
    assert secret not in logs.last_words("ftjob-a", 1)


def test_bytes_that_are_no_text_and_orders_to_a_terminal_do_no_harm(logs: Logs) -> None:
    write(logs, b"\x1b[31mred\x1b[0m\x1b]0;title\x07 \xff\x00 10%\r50%\r\n\tend")

    (told,) = logs.tail("ftjob-a", 10)

    assert told.text.splitlines()[-1] == "\tend"
    assert not any(c < " " and c not in "\n\t" for c in told.text)
    assert "50%" in told.text


@pytest.mark.parametrize("job_id", ["../x", "ftjob-a/../../b", "", "/etc"])
def test_a_name_that_is_no_job_reads_nothing(logs: Logs, job_id: str) -> None:
    with pytest.raises(ValueError, match="not a job"):
        logs.tail(job_id, 10)


def test_a_job_without_a_log_has_none(logs: Logs) -> None:
    assert logs.tail("ftjob-a", 10) == []
    assert logs.last_words("ftjob-a", 1) == ""


def test_the_logs_of_a_job_that_is_claimed_for_ever_do_not_pile_up(logs: Logs) -> None:
    for fence in range(1, MOST_CLAIMS + 10):
        write(logs, b"x\n", fence)

    kept = [entry.fence for entry in logs.tail("ftjob-a", 1000)]

    assert len(kept) == MOST_CLAIMS
    assert kept[-1] == MOST_CLAIMS + 9
