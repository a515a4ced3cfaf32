"""`plait predict`: what is sent of a row or a file of rows, what is shown, and how it ends."""

import json
from importlib import import_module
from typing import Any

import pytest
from click.testing import CliRunner

from plait import Client
from plait.cli import main
from support.scripted import Answer, refusal

MODEL = "ft:late-fusion:default::1a2b"
MODALITIES = {"used": ["image", "text"], "missing": ["audio"], "failed": []}
WEIGHTS = {"weights": {"image": 0.75, "text": 0.25}, "weights_by": "gates"}


def item(id_: str, **more: Any) -> dict[str, Any]:
    return {"id": id_, "label": "7", "score": 0.9, "modalities": MODALITIES | WEIGHTS} | more


def failed(id_: str) -> dict[str, Any]:
    error = {"code": "unreadable_media", "message": "this is no picture\x1b[2J", "param": "image"}
    return {"id": id_, "error": error, "modalities": {"used": [], "missing": [], "failed": ["image"]}}


def run(*items: dict[str, Any], status: str = "succeeded", **more: Any) -> dict[str, Any]:
    return {"id": "pred_1", "status": status, "model": MODEL, "predictions": list(items)} | more


def sent(server) -> list[list[dict[str, Any]]]:
    """The rows of each request."""
    return [asked.json["inputs"] for asked in server.asked if asked.path.endswith("/predictions")]


@pytest.fixture
def known(server) -> None:
    """A model whose job tells the columns that it reads."""
    server.on(f"GET /models/{MODEL}", {"id": MODEL, "job": "ftjob-1"})
    towers = {"image": {}, "audio": {}, "text": {}}
    job = {"id": "ftjob-1", "status": "succeeded", "multimodal": {"towers": towers}}
    server.on("GET /fine_tuning/jobs/ftjob-1", job)


def test_a_value_is_text_or_a_file_by_at_or_by_its_extension(plait, server, tmp_path):
    (tmp_path / "seven.png").write_bytes(b"picture")
    (tmp_path / "sound").write_bytes(b"sound")
    server.on("POST /predictions", run(item("0")))
    inputs = ("-i", "image=seven.png", "-i", "audio=@sound", "-i", "text=@@home = README", "-i", "note=a.png")

    done = plait("predict", MODEL, *inputs, "--top-k", "3", "--mask")

    assert done.exit_code == 0, done.output
    [[row]] = sent(server)
    assert row["image"].startswith("data:image/png;base64,")
    assert row["audio"].startswith("data:application/octet-stream;base64,")
    assert (row["text"], row["note"]) == ("@home = README", "a.png")
    assert (server.asked[0].json["top_k"], server.asked[0].json["on_bad_input"]) == (3, "mask")


def test_one_row_is_answered_in_detail(plait, server):
    top = [{"label": "7", "score": 0.9}, {"label": "1", "score": 0.05}]
    server.on("POST /predictions", run(item("0", top=top, warnings=["it is dark"])))

    told = plait("predict", MODEL, "-i", "text=a").stdout.splitlines()

    assert [line.split(":", 1) for line in told] == [
        ["answer", f"{'':11}7"],
        ["score", f"{'':12}0.9000"],
        ["likeliest", f"{'':8}7 0.9000, 1 0.0500"],
        ["from", f"{'':13}image 75 %, text 25 %"],
        ["missing", f"{'':10}audio"],
        ["warnings", f"{'':9}it is dark"],
    ]


def test_rows_are_read_as_training_data_with_media_beside_the_file(plait, server, tmp_path, known):
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "7.png").write_bytes(b"picture")
    (tmp_path / "data" / "7.wav").write_bytes(b"sound")
    rows = [
        {"id": "r1", "image_file_name": "images/7.png", "text": "a 7.png", "label": "7", "split": "test"},
        {"file_name": "7.wav", "text": None, "voice": 3, "image": {"file_id": "file-1"}},
    ]
    (tmp_path / "data" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    server.on("POST /predictions", run(item("r1"), item("2")))

    done = plait("predict", MODEL, "-f", "data/rows.jsonl", "--json")

    assert done.exit_code == 0, done.output
    [[first, second]] = sent(server)
    assert (first.pop("image")[:21], second.pop("audio")[:20]) == (
        "data:image/png;base64",
        "data:audio/x-wav;bas",
    )
    assert first == {"id": "r1", "text": "a 7.png"}
    assert second == {"id": "2", "text": None, "image": {"file_id": "file-1"}}
    assert done.stderr == "Not sent, since they are no inputs of the model: label, split, voice.\n"
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["r1", "2"]


def test_several_files_of_a_cell_are_sent_as_a_list(plait, server, tmp_path, known):
    for name in ("a.png", "b.png", "odd;name.png"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "rows.csv").write_text("image_file_names\na.png; b.png;\nodd;name.png\n;\n")
    (tmp_path / "rows.jsonl").write_text('{"image_file_names": ["a.png", "b.png"]}\n')
    server.on("POST /predictions", run(item("2"), item("3"), item("4")), run(item("1")))

    plait("predict", MODEL, "-f", "rows.csv")
    plait("predict", MODEL, "-f", "rows.jsonl")

    [[both, odd, none], [again]] = sent(server)
    assert len(both["image"]) == 2
    assert again["image"] == both["image"]
    assert odd["image"].startswith("data:image/png;base64,")
    assert none["image"] is None


def test_a_csv_of_a_model_without_a_job_leaves_out_what_training_data_have_beside(plait, server, tmp_path):
    (tmp_path / "rows.csv").write_text('id,text,label\nr1,"a, b",x\nr2,,y\n')
    server.on(f"GET /models/{MODEL}", {"id": MODEL})
    server.on("POST /predictions", run(item("r1"), item("r2")))

    plait("predict", MODEL, "-f", "rows.csv")

    assert sent(server) == [[{"id": "r1", "text": "a, b"}, {"id": "r2", "text": None}]]


def test_numbers_and_flags_of_a_file_are_sent_for_their_columns(plait, server, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"price": 3.5, "floor": 2, "new": true, "shop": "north"}\n')
    server.on(f"GET /models/{MODEL}", {"id": MODEL})
    server.on("POST /predictions", run(item("1")))

    plait("predict", MODEL, "-f", "rows.jsonl")

    assert sent(server) == [[{"id": "1", "price": "3.5", "floor": "2", "new": True, "shop": "north"}]]


def test_many_rows_are_sent_in_batches_and_answered_in_their_order(plait, server, tmp_path, known):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(600)))
    ids = [str(n + 1) for n in range(600)]
    batches = [run(*map(item, ids[at : at + 256])) for at in (0, 256, 512)]
    server.on("POST /predictions", *batches)

    done = plait("predict", MODEL, "-f", "rows.jsonl", "--json", "--out", "answers.jsonl")

    assert [len(rows) for rows in sent(server)] == [256, 256, 88]
    assert [row["id"] for rows in sent(server) for row in rows] == ids
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ids
    assert (tmp_path / "answers.jsonl").read_text() == done.stdout


def test_large_media_make_smaller_batches(plait, server, tmp_path, known):
    (tmp_path / "a.wav").write_bytes(bytes(20_000_000))
    (tmp_path / "rows.jsonl").write_text('{"audio_file_name": "a.wav"}\n' * 3)
    server.on("POST /predictions", run(item("1")))

    plait("predict", MODEL, "-f", "rows.jsonl")

    assert [asked.method for asked in server.asked].count("POST") == 3


def test_rows_of_many_media_make_batches_of_as_many_files_as_the_server_takes(plait, server, tmp_path, known):
    (tmp_path / "a.png").write_bytes(bytes(5000))
    (tmp_path / "rows.jsonl").write_text((json.dumps({"image": ["a.png"] * 20}) + "\n") * 60)
    ids = [str(n + 1) for n in range(60)]
    server.on("POST /predictions", run(*map(item, ids[:51])), run(*map(item, ids[51:])))

    done = plait("predict", MODEL, "-f", "rows.jsonl")

    assert done.exit_code == 0
    asked = [one for one in server.asked if one.method == "POST"]
    files = [one.body.count(b"filename=") for one in asked]
    # The first megabyte of each request travels inside of its JSON.
    assert files == [51 * 20 - 2**20 // 5000, 0]


def test_rows_with_an_error_are_told_beside_the_others_and_end_with_1(plait, server, tmp_path, known):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n' * 2)
    server.on("POST /predictions", run(item("1"), failed("2")))

    done = plait("predict", MODEL, "-f", "rows.jsonl")

    assert done.exit_code == 1
    _, first, second = (line.split() for line in done.stdout.splitlines())
    assert (first[:3], second) == (["1", "7", "0.9000"], ["2", "error:", "unreadable_media"])
    assert done.stderr.splitlines() == [
        r"row 2, column image: this is no picture\x1b[2J [unreadable_media]",
        "Error: 1 of 2 rows have no answer.",
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"image_file_name": "absent.png"}', "line 1, column image: there is no file 'absent.png'"),
        ('{"image_file_name": "../secret.png"}', "line 1, column image: '../secret.png' leads out"),
        ('{"image_file_name": "/etc/hostname"}', "line 1, column image: '/etc/hostname' leads out"),
        ('{"image_file_name": "link.png"}', "line 1, column image: 'link.png' leads out"),
        ('{"text": {"url": "x"}}', "line 1, column text: it must be text"),
        ('{"text": ["a", null]}', "line 1, column text: a list holds no null"),
        ('{"text": [["a"]]}', "line 1, column text: a list holds no null, no empty text and no other list"),
        ('{"text": "a"', "line 1: this is not JSON"),
        ('["a"]', "line 1: write one JSON object a line"),
        ('{"image_file_name": "a.png", "image": "x"}', "column image: two keys give it a value"),
        ("", "has no rows"),
    ],
)
def test_a_bad_file_of_rows_is_told_before_anything_is_sent(plait, server, tmp_path, known, row, said):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "in" / "rows.jsonl").write_text(row)

    done = plait("predict", MODEL, "-f", "in/rows.jsonl")

    assert done.exit_code == 1
    assert said in done.stderr
    assert sent(server) == []


def test_masked_rows_go_without_the_media_that_cannot_be_sent(plait, server, tmp_path, known):
    (tmp_path / "rows.jsonl").write_text('{"image_file_name": "absent.png", "text": "a"}\n')
    server.on("POST /predictions", run(item("1")))

    done = plait("predict", MODEL, "-f", "rows.jsonl", "--mask")

    assert sent(server) == [[{"id": "1", "image": None, "text": "a"}]]
    assert "there is no file 'absent.png' beside the table; left out (--mask)." in done.stderr


def test_rows_may_come_from_stdin(plait, server, known):
    server.on("POST /predictions", run(item("1")))

    assert plait("predict", MODEL, "-f", "-", text='{"text": "a"}\n').exit_code == 0
    assert sent(server) == [[{"id": "1", "text": "a"}]]


@pytest.mark.parametrize(
    ("run_", "said"),
    [
        (
            run(status="failed", error={"code": "model_gone", "message": "The model is gone."}),
            "The model is gone",
        ),
        (run(status="cancelled", error=None), "pred_1 cancelled: no reason given"),
        (refusal(404, "model_not_found", "No model x."), "plait models list"),
    ],
)
def test_a_run_without_answers_is_told_with_its_reason(plait, server, run_, said):
    server.on("POST /predictions", run_)

    done = plait("predict", MODEL, "-i", "text=a")

    assert (done.exit_code, done.stdout) == (1, "")
    assert said in done.stderr


def test_what_was_answered_stays_when_a_later_batch_fails(plait, server, tmp_path, known):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n' * 300)
    answered = run(*(item(str(n)) for n in range(256)))
    server.on("POST /predictions", answered, refusal(403, "forbidden", "This key may not."))

    done = plait("predict", MODEL, "-f", "rows.jsonl", "--out", "answers.jsonl")

    assert done.exit_code == 1
    assert "256 of 300 rows were answered before this:" in done.stderr
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 256


def test_an_interrupted_prediction_is_cancelled(server, monkeypatch):
    monkeypatch.setattr(import_module("plait.cli.predict"), "QUIET_S", 0.0)
    server.on("POST /predictions", Answer(202, run(status="queued")))
    server.on("GET /predictions/pred_1", run(status="queued"))
    server.on("POST /predictions/pred_1/cancel", run(status="cancelled"))

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    with Client(server.base_url, "k", wait=interrupt) as client:
        done = CliRunner().invoke(main, ["predict", MODEL, "-i", "text=a"], obj=client)

    assert done.exit_code == 130
    assert "pred_1 is cancelled." in done.stderr
    assert server.asked[-1].path == "/v1/predictions/pred_1/cancel"


@pytest.mark.parametrize(
    "words", [[], ["-i", "text"], ["-i", "=a"], ["-i", "a=1", "-i", "a=2"], ["-i", "a=1", "-f", "rows.csv"]]
)
def test_wrong_usage_ends_with_2(plait, server, tmp_path, words):
    (tmp_path / "rows.csv").write_text("text\na\n")

    assert plait("predict", MODEL, *words).exit_code == 2
    assert server.asked == []


def test_a_file_that_is_not_there_is_no_text(plait, server):
    done = plait("predict", MODEL, "-i", "image=@absent.png")

    assert (done.exit_code, server.asked) == (1, [])
    assert "There is no file absent.png.\nA text that begins with @ is written with @@." in done.stderr


def test_what_masking_cannot_mend_is_told_without_that_advice(plait, server, tmp_path, known):
    (tmp_path / "rows.jsonl").write_text('{"image_file_name": "https://a.b/c.png", "text": "a"}\nnot json\n')

    plain, masked = (plait("predict", MODEL, "-f", "rows.jsonl", *more) for more in ([], ["--mask"]))

    assert "line 1, column image: 'https://a.b/c.png': addresses are not fetched" in plain.stderr
    assert "--mask" in plain.stderr
    assert (masked.exit_code, "line 2" in masked.stderr, "--mask" in masked.stderr) == (1, True, False)
    assert sent(server) == []
