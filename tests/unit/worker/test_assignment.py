"""What a child is given with a prediction, and what goes with it when it is over."""

from db.tables import Job
from domain.job import Kind
from worker.assignment import own_blobs


def test_media_in_lists_go_with_their_prediction_but_uploaded_files_stay() -> None:
    several = [
        {"blob": "1-of-p", "sha256": "x"},
        {"inline": "QQ=="},
        "text",
        {"blob": "f", "sha256": "x", "file": "f"},
    ]
    rows = [
        {"values": {"image": {"several": several}, "text": "a", "sound": {"blob": "2-of-p", "sha256": "y"}}}
    ]

    assert own_blobs(Job(kind=Kind.PREDICT, spec={"inputs": rows})) == ["1-of-p", "2-of-p"]
