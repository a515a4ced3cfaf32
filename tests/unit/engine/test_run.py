"""A whole fine-tune from files to a model folder, with tiny encoders and real pictures, sounds and words."""

import csv
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from domain.errors import EngineError
from domain.manifest import ColumnType
from domain.specs import Multimodal
from domain.towers import DEFAULT_ENCODERS
from engine.data import decode
from engine.infer import load
from engine.models.build import build_model
from engine.models.fusion import FUSIONS
from engine.models.store import load_model
from engine.train import encode
from engine.train.run import Finished, Progress, Stopped, train
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT

FROZEN = {
    "image": {"encoder": IMAGE},
    "audio": {"encoder": AUDIO, "max_seconds": 0.5},
    "text": {"encoder": TEXT},
}
TRAINED = {"image": {"encoder": IMAGE, "freeze": False, "lr": 1e-3}, "text": {"encoder": TEXT}}
HALF = {"image": {"encoder": IMAGE, "freeze": 0.5, "lr": 1e-3}, "text": {"encoder": TEXT, "freeze": 0.0}}


class Place:
    """Folders of one test, and what was reported and saved."""

    def __init__(self, folder: Path, encoders: dict[str, Path], **data: Any) -> None:
        self.folder, self.encoders = folder, encoders
        self.data = tiny_av(folder, **{"rows": 24, "missing": 0.2, **data})
        self.said: list[Progress] = []
        self.saved: list[Path] = []
        self.decided: list[dict[str, Any]] = []

    def train(
        self, towers: dict[str, Any], out: str = "out", should_stop: Any = lambda: None, **options: Any
    ) -> Finished | Stopped:
        hyper = {"n_epochs": 3, "batch_size": 4, "logging_steps": 1} | options.pop("hyper", {})
        fusion = {"dim": 8, "type": options.pop("fusion", "concat")}
        spec = {"towers": towers, "fusion": fusion, "hyperparameters": hyper, **options.pop("spec", {})}
        return train(
            Multimodal.model_validate(spec),
            **{
                "training": self.data,
                "cache": self.folder / "cache",
                "seed": 1,
                "save": self.keep,
                **options,
            },
            encoders=self.encoders.__getitem__,
            out=self.folder / out,
            report=self.said.append,
            decided=self.decided.append,
            should_stop=should_stop,
        )

    def keep(self, path: Path, about: dict[str, Any]) -> None:
        self.saved.append(path)

    def metric(self, name: str) -> list[float]:
        return [p.metrics[name] for p in self.said if p.metrics and name in p.metrics]

    def steps(self, out: str = "out") -> list[dict[str, str]]:
        with (self.folder / out / "results" / "results.csv").open() as file:
            return list(csv.DictReader(file))


@pytest.fixture
def place(tmp_path: Path, encoders: dict[str, Path]) -> Place:
    return Place(tmp_path, encoders)


def _after(asked: int) -> Callable[[], str | None]:
    left = iter(range(asked))
    return lambda: None if next(left, None) is not None else "cancel"


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every call of a decoder, by name."""
    calls: list[str] = []

    def count(name: str) -> None:
        real = getattr(decode, name)

        def counting(data: bytes, **options: Any) -> Any:
            calls.append(name)
            return real(data, **options)

        monkeypatch.setattr(decode, name, counting)

    count("image")
    count("audio")
    return calls


#: The kernels that a fusion runs through; combine_modalities where none is named. The low-rank op is plain torch.
_OPS = {
    "concat": ["masked_projection"],
    "gated": ["combine_modalities", "masked_projection"],
    "mmd": ["combine_modalities", "mmd_rbf"],
    "tensor": [],
    "low_rank_tensor": [],
    "cnn": [],
}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_fine_tune_leaves_a_model_its_metrics_and_a_report(place: Place, fusion: str) -> None:
    ending = place.train(FROZEN, fusion=fusion)

    assert isinstance(ending, Finished)
    assert ending.steps == 12
    assert {"test_accuracy", "test_f1_macro", "valid_accuracy", "cached_epoch_speedup"} <= set(ending.metrics)
    assert ending.resolved["hyperparameters"]["learning_rate"] == 1e-3
    report = json.loads((place.folder / "out/results/report.json").read_text())
    assert report["counts"] == {"train": 15, "validation": 6, "test": 3}
    assert np.array(report["test"]["confusion_matrix"]).sum() == 3
    for op in _OPS.get(fusion, ["combine_modalities"]):
        assert report["kernels"][op] == ["torch"]
    assert [row["step"] for row in place.steps()] == [str(n) for n in range(1, 13)]
    assert [path.name for path in place.saved]


def test_the_second_epoch_reads_no_media(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _counted(monkeypatch)

    place.train(FROZEN, hyper={"n_epochs": 1})
    after_one = len(calls)
    place.train(FROZEN, out="again", hyper={"n_epochs": 5})

    assert 0 < after_one <= 48
    assert len(calls) == after_one


def test_towers_are_encoded_once_for_all_jobs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _counted(monkeypatch)

    place.train({"image": FROZEN["image"]}, out="one")
    place.train({"audio": FROZEN["audio"]}, out="other")
    before = len(calls)
    place.train(FROZEN, out="both")

    assert len(calls) == before


def test_a_full_cache_changes_no_loss(place: Place) -> None:
    place.train(FROZEN, out="filling")
    filling = place.metric("train_loss")
    place.said.clear()

    place.train(FROZEN, out="filled")

    assert place.metric("train_loss") == filling


def test_the_gain_measured_when_the_cache_was_filled_is_kept(place: Place) -> None:
    first = place.train(FROZEN, out="filling")
    second = place.train(FROZEN, out="filled", hyper={"n_epochs": 5})

    assert isinstance(first, Finished)
    assert isinstance(second, Finished)
    assert second.metrics["cached_epoch_speedup"] == first.metrics["cached_epoch_speedup"] > 1


def test_encoding_stops_within_a_micro_batch_and_keeps_what_it_has(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(encode.ROWS_AT_ONCE, ColumnType.IMAGE, 2)
    only = {"image": FROZEN["image"]}
    calls = _counted(monkeypatch)
    rows, batches = 24, 3

    # Once a row while the bytes are read for their keys, then once a micro-batch of two.
    ending = place.train(only, should_stop=_after(rows + batches))
    calls.clear()
    place.train(only, out="again")

    assert ending == Stopped(0, "cancel")
    assert len(calls) == decoded_rows(place) - 2 * batches


def decoded_rows(place: Place) -> int:
    """The pictures of the data set."""
    with zipfile.ZipFile(place.data) as archive:
        return sum(name.endswith(".png") for name in archive.namelist())


def test_encoding_says_how_far_it_is(place: Place) -> None:
    place.train({"image": FROZEN["image"]})

    said = [p for p in place.said if p.stage == "encoding"]
    assert said[-1].step == said[-1].total_steps == decoded_rows(place)
    assert said[0].message


@pytest.mark.parametrize(
    "towers",
    [FROZEN, TRAINED, pytest.param(HALF, marks=pytest.mark.slow)],
    ids=["frozen", "trained", "half frozen"],
)
def test_a_resumed_run_has_the_losses_of_an_unbroken_one(place: Place, towers: dict[str, Any]) -> None:
    place.train(towers, out="whole")
    whole, table = place.metric("train_loss"), place.steps("whole")
    place.said.clear()

    def stop() -> str | None:
        return "drain" if len(place.metric("train_loss")) == 7 else None

    stopped = place.train(towers, out="first", should_stop=stop)
    torch.manual_seed(99)
    place.train(towers, out="second", resume=place.folder / "first/checkpoints/step-7")

    assert stopped == Stopped(7, "drain")
    assert place.metric("train_loss") == whole
    assert [row["train_loss"] for row in place.steps("second")] == [row["train_loss"] for row in table]


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 2}, "seed"),
    "batch size": ({"hyper": {"batch_size": 2}}, "multimodal.hyperparameters.batch_size"),
    "schedule": ({"hyper": {"lr_scheduler_type": "linear"}}, "multimodal.hyperparameters.lr_scheduler_type"),
    "fusion": ({"fusion": "mean"}, "multimodal.fusion.type"),
    "tower": ({"towers": {"image": {"encoder": IMAGE}}}, "multimodal.towers"),
    "encoder": ({"towers": {"text": {"encoder": TEXT, "max_length": 3}}}, "multimodal.towers.text"),
    "file": ({"data": {"training_file": "b" * 64}}, "training_file"),
}


@pytest.mark.parametrize("what", OTHER)
def test_a_checkpoint_of_another_run_is_refused_by_what_differs(place: Place, what: str) -> None:
    options, path = OTHER[what]
    text = {"text": FROZEN["text"]}
    place.train(text, data={"training_file": "a" * 64}, hyper={"n_epochs": 1})
    changed = {"towers": text, "data": {"training_file": "a" * 64}, **options}

    with pytest.raises(EngineError) as refused:
        place.train(out="other", resume=place.saved[-1], **changed)

    assert refused.value.code == "checkpoint_mismatch"
    assert path in refused.value.message
    assert "n_epochs" in refused.value.message


def test_how_long_a_run_goes_on_and_what_it_tells_may_differ(place: Place) -> None:
    place.train({"text": FROZEN["text"]}, hyper={"n_epochs": 1})
    free = {"n_epochs": 2, "logging_steps": 2, "eval_steps": 3, "save_steps": 5, "early_stopping_patience": 9}

    ending = place.train(
        {"text": FROZEN["text"]}, out="longer", resume=place.saved[-1], hyper=free | {"save_total_limit": 1}
    )

    assert isinstance(ending, Finished)
    assert ending.steps == 8


def test_a_spec_with_every_auto_decided_goes_on_as_the_one_with_auto(place: Place) -> None:
    towers = {"image": {"encoder": IMAGE, "freeze": False}, "text": {"encoder": TEXT}}
    auto = dict.fromkeys(("learning_rate", "logging_steps", "eval_steps"), "auto")
    place.train(towers, out="whole", hyper=auto)
    whole = place.metric("train_loss")
    place.said.clear()

    place.train(
        towers,
        out="first",
        hyper=auto,
        should_stop=lambda: "drain" if len(place.metric("train_loss")) == 5 else None,
    )
    place.train(towers, out="second", spec=place.decided[-1], resume=place.saved[-1])

    words = json.dumps(place.decided[-1]["hyperparameters"])
    assert "auto" not in words
    assert place.decided[-1]["towers"]["image"]["lr"] == 2e-5
    assert place.decided[-1]["task"] == "classification"
    assert place.decided[0] == place.decided[1] == place.decided[2]
    assert place.metric("train_loss") == whole


def test_a_trained_tower_has_a_learning_rate_of_its_own(place: Place) -> None:
    towers = {
        "image": {"encoder": IMAGE, "freeze": False, "lr": 1e-30},
        "text": {"encoder": TEXT, "freeze": False, "lr": 1e-2},
    }

    place.train(towers)

    model, card = load_model(place.folder / "out/model", place.encoders.__getitem__)
    folders = {name: place.encoders[str(tower["encoder"])] for name, tower in towers.items()}
    fresh = build_model(card.spec, card.schema, 3, folders)
    assert _moved(model.encoder("image"), fresh.encoder("image")) < 1e-20
    assert _moved(model.encoder("text"), fresh.encoder("text")) > 1e-3


def _moved(one: torch.nn.Module, other: torch.nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def test_a_half_frozen_tower_is_kept_and_loaded_with_what_it_learned(place: Place) -> None:
    place.train(HALF)

    model, card = load_model(place.folder / "out/model", place.encoders.__getitem__)
    fresh = build_model(card.spec, card.schema, 3, {n: place.encoders[t["encoder"]] for n, t in HALF.items()})
    moved = {
        name: not torch.equal(p, dict(fresh.encoder("image").named_parameters())[name])
        for name, p in model.encoder("image").named_parameters()
    }
    weights = load_file(place.folder / "out/model/model.safetensors")
    assert not any(moved[name] for name in moved if ".conv_stem." in name or ".layer.7." in name)
    assert any(moved[name] for name in moved if ".layer.8." in name)
    assert not any(name.startswith("encoders.0.network.layer.0.") for name in weights)


def test_several_labels_are_learned_tested_and_reported(place: Place) -> None:
    table = _table(place, lambda n: [name for name in ("red", "blue") if name in _words(n)])

    hyper = {"n_epochs": 20, "learning_rate": 0.01}

    ending = place.train({"text": FROZEN["text"]}, training=table, hyper=hyper, fusion="gated")

    assert isinstance(ending, Finished)
    assert {"test_f1_macro", "test_average_precision", "test_exact_match", "valid_roc_auc"} <= set(
        ending.metrics
    )
    assert ending.metrics["valid_loss"] < 0.6
    report = json.loads((place.folder / "out/results/report.json").read_text())
    assert (report["task"], report["classes"], report["target"]) == ("multilabel", ["blue", "red"], None)
    assert [entry["class"] for entry in report["test"]["per_class"]] == ["blue", "red"]
    answer = load(place.folder / "out/model", place.encoders.__getitem__).predict([{"text": "red"}])[0]
    assert (answer.modalities.weights, answer.modalities.weights_by) == ({"text": 1.0}, "gates")
    assert report["hyperparameters"]["metric_for_best_model"] == "f1_macro"


def test_a_number_is_learned_in_its_own_unit(place: Place) -> None:
    table = _table(place, lambda n: 1000.5 + 10.0 * len(_words(n)))

    ending = place.train({"text": FROZEN["text"]}, training=table, hyper={"n_epochs": 40}, fusion="sum")

    assert isinstance(ending, Finished)
    spread = float(np.std([1000.5 + 10.0 * len(_words(n)) for n in range(60)]))
    assert ending.metrics["test_rmse"] < spread
    assert ending.metrics["test_pearsonr"] > 0.5
    config = json.loads((place.folder / "out/model/config.json").read_text())
    _, card = load_model(place.folder / "out/model", place.encoders.__getitem__)
    assert config["classes"] == card.classes == []
    assert config["target"]["mean"] == pytest.approx(card.target.mean if card.target else None)
    answer = load(place.folder / "out/model", place.encoders.__getitem__).predict([{"text": _words(3)}])[0]
    assert answer.value is not None
    assert abs(answer.value - (1000.5 + 10 * len(_words(3)))) < 3 * spread


def _words(n: int) -> str:
    return " ".join(("red", "blue", "green and more")[k] for k in range(3) if n >> k & 1) or "-"


def _table(place: Place, label: Callable[[int], Any]) -> Path:
    table = place.folder / "rows.jsonl"
    split = ("train", "train", "train", "validation", "test")
    lines = [{"text": _words(n), "label": label(n), "split": split[n % 5]} for n in range(60)]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return table


def test_fp16_is_refused_where_there_is_none(place: Place) -> None:
    with pytest.raises(EngineError, match="use bf16, fp32 or auto") as refused:
        place.train({"text": FROZEN["text"]}, hyper={"precision": "fp16"}, device="cpu")

    assert refused.value.param == "multimodal.hyperparameters.precision"


def test_a_trained_tower_runs_in_half_precision_too(place: Place) -> None:
    ending = place.train(TRAINED, hyper={"precision": "bf16", "n_epochs": 1})

    assert isinstance(ending, Finished)
    assert ending.resolved["hyperparameters"]["precision"] == "bf16"
    report = json.loads((place.folder / "out/results/report.json").read_text())
    assert report["hyperparameters"]["precision"] == "bf16"
    weights = load_file(place.folder / "out/model/model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float32}


@pytest.mark.slow
def test_two_runs_with_one_seed_are_one(place: Place) -> None:
    one = place.train(TRAINED, out="one")
    losses = place.metric("train_loss")
    place.said.clear()
    other = place.train(TRAINED, out="other")

    assert place.metric("train_loss") == losses
    assert isinstance(one, Finished)
    assert isinstance(other, Finished)
    assert one.metrics["test_loss"] == other.metrics["test_loss"]


def test_a_trained_tower_learns_and_a_frozen_one_does_not(place: Place) -> None:
    place.train(TRAINED)

    model, card = load_model(place.folder / "out/model", place.encoders.__getitem__)
    folders = {name: place.encoders[tower["encoder"]] for name, tower in TRAINED.items()}
    fresh = build_model(card.spec, card.schema, 3, folders)
    assert not _same(model.encoder("image"), fresh.encoder("image"))
    assert _same(model.encoder("text"), fresh.encoder("text"))


def _same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_model_folder_predicts_what_was_tested(place: Place) -> None:
    ending = place.train(FROZEN)
    model, card = load_model(place.folder / "out/model", place.encoders.__getitem__)

    seen = model.encoder("text")
    with torch.no_grad():
        text = seen(seen.prepare(["a low tone, number 7"]))
        nothing = {
            name: torch.full((1, model.encoder(name).width), float("nan")) for name in ("audio", "image")
        }
        logits = model({"text": text, **nothing}, torch.tensor([[False, False, True]]))

    assert isinstance(ending, Finished)
    assert card.classes == ["class-0", "class-1", "class-2"]
    assert card.metrics == ending.metrics
    assert logits.shape == (1, 3)
    assert logits.isfinite().all()


def test_frozen_encoders_are_named_and_not_copied(place: Place) -> None:
    place.train(FROZEN)

    config = json.loads((place.folder / "out/model/config.json").read_text())
    assert config["plait_format"] == 1
    assert config["towers"]["image"]["encoder"] == IMAGE
    weights = load_file(place.folder / "out/model/model.safetensors")
    assert {name.split(".")[0] for name in weights} == {"fusion", "head"}


def test_a_model_of_a_newer_format_is_refused(place: Place) -> None:
    place.train({"text": FROZEN["text"]})
    path = place.folder / "out/model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"plait_format": 2}))

    with pytest.raises(EngineError) as refused:
        load_model(path.parent, place.encoders.__getitem__)

    assert refused.value.code == "model_too_new"


def test_a_model_is_not_loaded_with_another_encoder_than_it_was_trained_on(place: Place) -> None:
    place.train({"text": FROZEN["text"]})
    other = shutil.copytree(place.encoders[TEXT], place.folder / "other")
    with (other / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x01")

    with pytest.raises(EngineError) as refused:
        load_model(place.folder / "out/model", lambda name: other)

    assert refused.value.code == "encoder_changed"


def test_a_run_that_nobody_counts_for_keeps_its_newest_checkpoints(place: Place) -> None:
    place.train(
        {"text": FROZEN["text"]}, hyper={"n_epochs": 4, "save_steps": 3, "save_total_limit": 2}, save=None
    )

    kept = {path.name for path in (place.folder / "out/checkpoints").iterdir()}
    assert kept == {"step-15", "step-16"}


def test_whoever_is_told_of_checkpoints_decides_which_are_kept(place: Place) -> None:
    place.train({"text": FROZEN["text"]}, hyper={"save_steps": 3, "save_total_limit": 1})

    assert [path.name for path in place.saved] == [f"step-{n}" for n in (3, 6, 9, 12)]
    assert {path.name for path in (place.folder / "out/checkpoints").iterdir()} == {
        path.name for path in place.saved
    }


def test_without_test_rows_there_are_no_test_metrics(place: Place) -> None:
    lines = [{"text": f"{'ab'[n % 2]} row {n}", "label": n % 2} for n in range(12)]
    table = place.folder / "rows.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))

    ending = place.train({"text": FROZEN["text"]}, training=table)

    assert isinstance(ending, Finished)
    assert not [name for name in ending.metrics if name.startswith("test_")]
    assert json.loads((place.folder / "out/results/report.json").read_text())["test"] is None


def test_a_test_file_of_its_own_counts_whole(place: Place) -> None:
    ending = place.train({"text": FROZEN["text"]}, test=place.data, validation=place.data)

    assert isinstance(ending, Finished)
    report = json.loads((place.folder / "out/results/report.json").read_text())
    assert report["counts"] == {"train": 15, "validation": 24, "test": 24}


def test_an_upload_without_a_suffix_is_read_by_its_look(place: Place) -> None:
    stored = place.folder / "file-1"
    stored.write_text("text,label\n" + "".join(f"row {n},{'ab'[n % 2]}\n" for n in range(12)))

    ending = place.train({"text": FROZEN["text"]}, training=stored)

    assert isinstance(ending, Finished)


def test_an_unreadable_picture_ends_the_job_by_line_and_column(place: Place) -> None:
    broken = place.folder / "broken.zip"
    with zipfile.ZipFile(place.data) as whole, zipfile.ZipFile(broken, "w") as out:
        for name in whole.namelist():
            out.writestr(name, b"no picture" if name == "images/3.png" else whole.read(name))

    with pytest.raises(EngineError, match="line 4, column 'image'") as ended:
        place.train({"image": FROZEN["image"]}, training=broken)

    assert ended.value.code == "unreadable_media"


def test_without_towers_every_column_with_an_encoder_gets_one(place: Place) -> None:
    kinds = {"text": TEXT, "image": IMAGE, "audio": AUDIO}
    place.encoders = place.encoders | {
        DEFAULT_ENCODERS[kind]: place.encoders[tiny] for kind, tiny in kinds.items()
    }

    place.train({}, hyper={"n_epochs": 1})

    config = json.loads((place.folder / "out/model/config.json").read_text())
    assert sorted(config["towers"]) == ["audio", "image", "text"]
