"""Contrastive training: what belongs together in a row is brought together, without labels."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_reciprocal_rank

from domain.errors import EngineError
from domain.manifest import ColumnType
from domain.shapes import InvalidSpec, parse
from domain.specs import FineTune, Multimodal
from engine.data.check import check
from engine.data.manifest import open_dataset
from engine.data.targets import short_names
from engine.infer import load
from engine.models.joint import JointSpace
from engine.models.multimodal import Multimodal as Network
from engine.models.store import load_model
from engine.train import contrastive, retrieval
from engine.train.contrastive import Contrast
from engine.train.retrieval import ranks, retrieval_scores
from engine.train.run import Finished, Stopped, train
from support.datasets import tiny_av
from support.encoders import AUDIO, IMAGE, TEXT

TOWERS = {
    "image": {"encoder": IMAGE},
    "audio": {"encoder": AUDIO, "max_seconds": 0.5},
    "text": {"encoder": TEXT},
}


def units(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def contrast(*, siglip: bool = False, rows: int = 1000) -> Contrast:
    return Contrast(JointSpace([4, 4], 3, has_bias=siglip), rows)


def keys(*columns: list[int]) -> Tensor:
    return torch.tensor(columns).T.contiguous()


@pytest.mark.parametrize("siglip", [False, True])
def test_the_loss_with_equal_contents_is_the_one_without_where_no_contents_are_equal(siglip: bool) -> None:
    loss, outputs = contrast(siglip=siglip), units(9, 2, 3)
    a, b = outputs.unbind(1)
    logits, alike = loss.space.scale * a @ b.T, torch.zeros(9, 9, dtype=torch.bool)

    masked = (
        contrastive._clip(logits, alike)
        if loss.space.bias is None
        else contrastive._siglip(logits + loss.space.bias, alike)
    )

    torch.testing.assert_close(masked, loss(outputs, keys([*range(1, 10)], [*range(1, 10)])))


def textbook(loss: Contrast, outputs: Tensor, told: Tensor) -> float:
    """Pair by pair; a pair of rows with an equal cell is in no sum."""
    scale, bias = loss.space.scale.item(), loss.space.bias
    near = (outputs[:, 0] @ outputs[:, 1].T * scale).tolist()
    rows = range(len(near))
    counts = [[i == j or not (told[i] == told[j]).any() for j in rows] for i in rows]
    if bias is None:
        across = [math.log(sum(math.exp(near[i][j]) for j in rows if counts[i][j])) for i in rows]
        down = [math.log(sum(math.exp(near[i][j]) for i in rows if counts[i][j])) for j in rows]
        return sum((across[i] + down[i]) / 2 - near[i][i] for i in rows) / len(rows)
    signed = [(-1 if i == j else 1) * (near[i][j] + bias.item()) for i in rows for j in rows if counts[i][j]]
    return sum(math.log1p(math.exp(x)) for x in signed) / len(rows)


@pytest.mark.parametrize("siglip", [False, True])
def test_rows_with_equal_contents_are_no_negatives_of_one_another(siglip: bool) -> None:
    loss, outputs = contrast(siglip=siglip), units(6, 2, 3)
    told = keys([1, 1, 2, 3, 4, 5], [1, 2, 3, 4, 4, 4])

    assert loss(outputs, told).item() == pytest.approx(textbook(loss, outputs, told), rel=1e-5)


def test_a_batch_in_which_all_say_the_same_has_nothing_to_learn() -> None:
    loss = contrast()(units(4, 2, 3), keys([1, 2, 3, 4], [5, 5, 5, 5]))

    assert loss.item() == 0


def test_a_row_without_one_of_a_pair_takes_no_part_in_that_pair() -> None:
    loss, outputs = contrast(), units(6, 2, 3)
    with_gaps = keys([1, 2, 0, 4, 5, 6], [1, 2, 3, 0, 5, 6])

    torch.testing.assert_close(
        loss(outputs, with_gaps), loss(outputs[[0, 1, 4, 5]], keys([1, 2, 5, 6], [1, 2, 5, 6]))
    )


def test_the_loss_of_three_columns_is_the_mean_over_their_pairs() -> None:
    loss, outputs, told = contrast(), units(5, 3, 3), keys(*[[1, 2, 3, 4, 5]] * 3)

    pairs = [loss(outputs[:, pair], told[:, pair]) for pair in ([0, 1], [0, 2], [1, 2])]

    torch.testing.assert_close(loss(outputs, told), sum(pairs) / 3)


def test_a_batch_without_any_pair_costs_nothing_and_still_has_a_gradient() -> None:
    outputs = units(3, 2, 3).requires_grad_()

    loss = contrast()(outputs, keys([1, 2, 0], [0, 0, 3]))
    loss.backward()

    assert loss.item() == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_the_factor_of_similarities_never_grows_beyond_a_hundred() -> None:
    space = JointSpace([4, 4], 3, has_bias=False)
    space.log_scale.data.fill_(math.log(500))

    space.learn([torch.randn(2, 4), torch.randn(2, 4)], torch.ones(2, 2, dtype=torch.bool))

    assert space.scale.item() == pytest.approx(100)


def test_what_lies_in_a_missing_slot_reaches_neither_output_nor_gradient() -> None:
    space = JointSpace([4, 4], 3, has_bias=False)
    present = torch.tensor([[True, False], [True, True]])
    given = [torch.randn(2, 4), torch.tensor([[math.nan] * 4, [1.0, 2.0, 3.0, 4.0]])]

    out = space(given, present)
    out.sum().backward()

    assert not out[0, 1].any()
    torch.testing.assert_close(out[1].norm(dim=1), torch.ones(2))
    assert all(p.grad is None or p.grad.isfinite().all() for p in space.parameters())


def test_projections_begin_with_what_differs_between_rows_at_one_size() -> None:
    """One entry is a thousand times as large as the others and the same in all rows, and one hardly differs."""
    space, rows = JointSpace([6, 6], 3, has_bias=False), torch.Generator().manual_seed(0)
    given = torch.randn(200, 6, generator=rows) * torch.tensor([0.0, 1.0, 1.0, 5.0, 1.0, 0.001])
    given[:, 0] = 30.0
    given[100:] = torch.nan
    present = torch.ones(200, 2, dtype=torch.bool)
    present[100:] = False

    space.standardise([given, given], present)
    made = space.towers[0][0](given[:100])

    torch.testing.assert_close(made.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    assert (made.std(0) < 1.01).all()
    assert (made.std(0)[[1, 2, 3, 4]] > 0.99).all()


def test_ranks_are_those_of_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = units(40, 6), units(40, 6, seed=1)
    place = torch.arange(1, 41)

    whole = ranks(a, b, place, place)
    monkeypatch.setattr(retrieval, "_AT_ONCE", 7 * 40)
    pieces = ranks(a, b, place, place)

    # torchmetrics passes over similarities that are not positive.
    near = a @ b.T + 2
    right = torch.eye(40, dtype=torch.bool)
    hits = torch.stack([retrieval_hit_rate(near[i], right[i], top_k=5) for i in range(40)])
    reciprocal = torch.stack([retrieval_reciprocal_rank(near[i], right[i]) for i in range(40)])
    assert torch.equal(whole, pieces)
    torch.testing.assert_close((whole <= 5).float(), hits.float())
    torch.testing.assert_close(1 / whole.float(), reciprocal)


def test_equal_contents_are_one_query_and_one_answer_and_each_of_its_partners_is_right() -> None:
    picture, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    pictures = torch.stack([picture, picture, other])
    texts = torch.stack([F.normalize(torch.tensor([-1.0, 0.2]), dim=0), picture, other])

    found = ranks(pictures, texts, torch.tensor([1, 1, 2]), torch.tensor([1, 2, 3]))

    # The one picture that has two texts is found by the better of them.
    assert found.tolist() == [1, 1]


def test_a_network_that_says_the_same_of_everything_finds_nothing() -> None:
    same = torch.ones(20, 2, 1)
    told = keys([*range(1, 21)], [*range(1, 21)])

    scores = retrieval_scores(same, told, ["i", "t"], contrast())

    assert (scores["recall@10"], scores["median_rank"]) == (0.0, 20.0)


def test_rows_of_a_validation_set_count_alike_whatever_the_batch() -> None:
    loss, outputs, told = contrast(rows=2), units(5, 2, 3), keys(*[[1, 2, 3, 4, 5]] * 2)

    parts = [
        loss(outputs[rows], told[rows]) * len(told[rows]) for rows in (slice(0, 2), slice(2, 4), slice(4, 5))
    ]

    torch.testing.assert_close(loss.over(outputs, told), sum(parts) / 5)


def numbers(folder: Path, rows: int) -> Path:
    """Two columns that say the same in two ways."""
    rng = np.random.default_rng(0)
    lines = []
    for n in range(rows):
        x = rng.uniform(-1, 1)
        row = {"a": x, "c": 5 - 3 * x}
        lines.append(json.dumps({**row, "split": ("train", "train", "train", "validation", "test")[n % 5]}))
    path = folder / "numbers.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


class Place:
    def __init__(self, folder: Path, encoders: dict[str, Path], data: Path) -> None:
        self.folder, self.encoders, self.data = folder, encoders, data
        self.saved: list[Path] = []
        self.told: list[str] = []

    def train(
        self, out: str = "out", towers: dict[str, Any] | None = None, **options: Any
    ) -> Finished | Stopped:
        hyper = {"n_epochs": 3, "batch_size": 8, "logging_steps": 1} | options.pop("hyper", {})
        spec = {"task": "contrastive", "fusion": {"dim": 8}, "hyperparameters": hyper}
        spec |= {"towers": towers} if towers else {}
        return train(
            Multimodal.model_validate(spec | options.pop("spec", {})),
            **{"training": self.data, "seed": 1, **options},
            encoders=self.encoders.__getitem__,
            cache=self.folder / "cache",
            out=self.folder / out,
            save=lambda path, _: self.saved.append(path),
            report=lambda progress: self.told.append(progress.message or ""),
        )

    def report(self, out: str = "out") -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.folder / out / "results/report.json").read_text())
        return read


@pytest.fixture
def place(tmp_path: Path, encoders: dict[str, Path]) -> Place:
    return Place(tmp_path, encoders, tiny_av(tmp_path, rows=40, missing=0.3))


@pytest.mark.parametrize(("loss", "least"), [("clip", 0.8), ("siglip", 0.6)])
def test_pairs_that_it_never_saw_are_found_nearly_all_from_chance(
    tmp_path: Path, encoders: dict[str, Path], loss: str, least: float
) -> None:
    place = Place(tmp_path, encoders, numbers(tmp_path, rows=120))
    hyper = {"n_epochs": 120, "batch_size": 72, "learning_rate": 1e-2}

    ending = place.train(
        hyper=hyper, spec={"loss": {"type": loss}, "fusion": {"dim": 32}}, towers={"a": {}, "c": {}}
    )

    assert isinstance(ending, Finished)
    # Of 24 test rows chance finds one in 24 at once.
    assert ending.metrics["test_recall@1"] > least
    assert ending.metrics["test_recall@10"] > 0.95
    assert ending.metrics["test_a2c_recall@1"] > least
    assert ending.metrics["test_c2a_median_rank"] == 1
    assert ending.resolved["family"] == "clip"


def test_columns_of_three_types_with_gaps_give_metrics_each_way_by_their_types_letters(place: Place) -> None:
    ending = place.train(towers=TOWERS)

    assert isinstance(ending, Finished)
    ways = {
        f"test_{way}_recall@{depth}"
        for way in ("i2t", "t2i", "a2i", "i2a", "a2t", "t2a")
        for depth in (1, 5, 10)
    }
    assert ways <= set(ending.metrics)
    assert {"valid_mrr", "valid_median_rank", "valid_loss", "test_recall@10"} <= set(ending.metrics)
    assert place.report()["classes"] == []


def test_a_stopped_run_goes_on_to_the_last_bit_as_if_it_had_never_stopped(place: Place) -> None:
    trained = TOWERS | {"image": {"encoder": IMAGE, "freeze": False, "lr": 1e-3}}
    whole = place.train("whole", trained, hyper={"save_steps": 3})
    left = iter(range(8))
    stopped = place.train(
        "cut", trained, should_stop=lambda: None if next(left, None) is not None else "pause"
    )
    place.train("on", trained, resume=place.saved[-1])

    assert isinstance(whole, Finished)
    assert isinstance(stopped, Stopped)
    first, second = ((place.folder / out / "model/model.safetensors").read_bytes() for out in ("whole", "on"))
    assert first == second


def test_a_model_answers_with_vectors_of_length_one_for_any_of_its_columns(place: Place) -> None:
    place.train(towers={name: TOWERS[name] for name in ("image", "text")}, spec={"loss": {"type": "siglip"}})
    model = load(place.folder / "out/model", encoders=place.encoders.__getitem__)
    picture = np.zeros((32, 32, 3), np.uint8)

    both, alone, none = model.predict(
        [{"image": picture, "text": "red"}, {"text": "red"}, {}], return_embeddings=True
    )
    (plain,) = model.predict([{"text": "red"}])

    assert both.embeddings is not None
    assert alone.embeddings is not None
    assert set(both.embeddings) == {"image", "text"}
    assert set(alone.embeddings) == {"text"}
    joined = np.mean([both.embeddings["image"], both.embeddings["text"]], axis=0)
    np.testing.assert_allclose(both.embedding, joined / np.linalg.norm(joined), atol=1e-5)
    np.testing.assert_allclose(alone.embedding, alone.embeddings["text"], atol=1e-6)
    np.testing.assert_allclose(alone.embeddings["text"], both.embeddings["text"], atol=1e-5)
    assert plain.embeddings is None
    np.testing.assert_allclose(plain.embedding, alone.embedding, atol=1e-5)
    assert (plain.label, plain.score, plain.modalities.weights) == (None, None, None)
    assert none.error is not None


def test_the_folder_gives_back_the_network_that_was_saved(place: Place) -> None:
    place.train(towers={name: TOWERS[name] for name in ("image", "text")})

    model, card = load_model(place.folder / "out/model", place.encoders.__getitem__)

    assert isinstance(model.fusion, JointSpace)
    assert (card.classes, card.spec.task, card.spec.loss.type) == ([], "contrastive", "clip")
    assert "feature-extraction" in (place.folder / "out/model/README.md").read_text()


def table(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def codes(path: Path, **spec: Any) -> set[tuple[str, str]]:
    with open_dataset(path) as dataset:
        return {
            (issue.code, issue.severity) for issue in check(dataset, Multimodal.model_validate(spec)).issues
        }


def test_rows_without_labels_are_in_order_for_a_contrastive_training(tmp_path: Path) -> None:
    rows = [{"name": f"a thing that is called {n}", "size": n * 1.5} for n in range(9)]

    assert codes(table(tmp_path, *rows), task="contrastive") == set()


def test_labels_of_any_kind_are_passed_over(tmp_path: Path) -> None:
    rows = [{"name": f"a thing that is called {n}", "size": n * 1.5} for n in range(9)]
    labels = ["a", 1.5, None, ["b"], "", {"x": 1}, True, "a", "a"]

    told = [row | {"label": label} for row, label in zip(rows, labels, strict=True)]

    assert not {
        code for code, severity in codes(table(tmp_path, *told), task="contrastive") if severity == "error"
    }


def test_a_table_without_labels_is_told_of_the_task_that_needs_none(tmp_path: Path) -> None:
    path = table(tmp_path, *[{"name": f"a thing that is called {n}", "size": n * 1.5} for n in range(9)])

    with open_dataset(path) as dataset:
        (problem,) = [i for i in check(dataset, Multimodal()).issues if i.severity == "error"]

    assert problem.code == "label_missing"
    assert "set task to contrastive" in problem.message


def test_one_column_has_nothing_to_be_brought_together_with(tmp_path: Path) -> None:
    rows = [{"name": f"a thing that is called {n}"} for n in range(9)]

    assert codes(table(tmp_path, *rows), task="contrastive") == {("missing_column", "error")}


def test_rows_that_all_lack_one_of_a_pair_teach_nothing(tmp_path: Path) -> None:
    rows = [
        {"name": f"a thing that is called {n}" if n % 2 else None, "size": None if n % 2 else n * 1.5}
        for n in range(9)
    ]

    assert ("too_few_examples", "error") in codes(table(tmp_path, *rows), task="contrastive")


def test_the_same_pair_twice_is_told(tmp_path: Path) -> None:
    rows = [{"name": f"a thing that is called {n % 8}", "size": n % 8 * 1.5} for n in range(9)]

    assert codes(table(tmp_path, *rows), task="contrastive") == {("duplicate_row", "warning")}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"multimodal": {"task": "contrastive", "family": "late-fusion"}}, "multimodal.family"),
        ({"model": "clip", "multimodal": {"task": "regression"}}, "multimodal.family"),
        ({"model": "clip", "multimodal": {"loss": {"type": "focal"}}}, "multimodal.loss.type"),
        ({"model": "clip", "multimodal": {"fusion": {"type": "film"}}}, "multimodal.fusion.type"),
        ({"multimodal": {"task": "classification", "loss": {"type": "siglip"}}}, "multimodal.loss.type"),
        ({"multimodal": {"start_columns": {"a": "b"}}}, "multimodal.start_columns"),
    ],
)
def test_what_does_not_go_together_is_refused_by_its_path(body: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse(FineTune, {"model": "late-fusion", "training_file": "file-1"} | body)

    assert path in [problem["path"] for problem in refused.value.problems]


@pytest.mark.parametrize(
    "body",
    [
        {"model": "clip"},
        {"model": "clip", "multimodal": {"task": "contrastive"}},
        {"model": "ft:m", "multimodal": {"task": "contrastive"}},
        {"model": "ft:m", "multimodal": {"family": "clip"}, "resume_from_checkpoint": "ftckpt_1"},
    ],
)
def test_the_task_the_family_and_the_jobs_model_imply_one_another(body: dict[str, Any]) -> None:
    spec = parse(FineTune, {"training_file": "file-1", **body}).merged()

    assert (spec.task, spec.family) == ("contrastive", "clip")
    assert parse(Multimodal, spec.model_dump(mode="json", by_alias=True)) == spec


def test_an_engine_error_is_raised_for_a_model_that_is_none(place: Place) -> None:
    with pytest.raises(EngineError, match="not a model of Plait"):
        place.train(towers=TOWERS, start=place.folder)


def scored(*names: str) -> dict[str, float]:
    """Row by row all columns hold the same: every way finds all."""
    told = torch.arange(1, 5).unsqueeze(1).expand(4, len(names)).contiguous()
    outputs = F.normalize(torch.eye(4), dim=1).unsqueeze(1).expand(4, len(names), 4).contiguous()
    return retrieval_scores(outputs, told, names, contrast())


def test_a_ways_metrics_have_names_that_a_database_can_keep_and_that_differ() -> None:
    found = scored("x" * 50 + "a", "x" * 50 + "b", "z\0\ud800")

    assert len([name for name in found if name.endswith("_median_rank")]) == 6
    assert all(len(f"valid_{name}") <= 100 and name.isprintable() for name in found)


def test_ways_that_would_be_written_alike_have_names_of_their_own() -> None:
    """From `a` to `a2a`, and back."""
    assert len([name for name in scored("a", "a2a") if name.endswith("_mrr")]) == 2


def test_columns_whose_short_names_are_those_of_others_keep_their_own_names() -> None:
    image, text, audio = ColumnType.IMAGE, ColumnType.TEXT, ColumnType.AUDIO

    assert short_names({"t": image, "x": image, "caption": text}) == ("caption", "t", "x")
    assert short_names({"front": image, "back": image, "caption": text}) == ("back", "t", "front")
    assert short_names({"photo": image, "caption": text, "sound": audio}) == ("t", "i", "a")


def test_a_run_whose_batch_does_not_fit_ends_with_what_to_do(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(self: Network, inputs: Any, present: Tensor) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Network, "learn", learn)

    with pytest.raises(EngineError, match=r"batch of 8 rows .*smaller batch_size"):
        place.train(towers={name: TOWERS[name] for name in ("image", "text")})
