"""A spec's family: the fusion that it brings, and options that make no sense for it."""

from typing import Any

import pytest

from domain.errors import InvalidSpec
from domain.families import TOKEN_FUSIONS
from domain.fusions import Fusion
from domain.shapes import parse
from domain.specs import FineTune, Multimodal
from domain.tasks import Task


def _job(**fields: Any) -> FineTune:
    return parse(FineTune, {"training_file": "file-1", **fields})


@pytest.mark.parametrize("family", TOKEN_FUSIONS)
def test_a_jobs_model_is_enough_to_name_its_family(family: str) -> None:
    spec = _job(model=family, multimodal={"fusion": {"layers": 3}}).merged()

    assert spec.family == family
    assert (spec.fusion.type, spec.fusion.dim, spec.fusion.layers) == (TOKEN_FUSIONS[family], 128, 3)


@pytest.mark.parametrize("family", TOKEN_FUSIONS)
def test_a_stored_spec_is_the_same_spec_when_it_is_read_again(family: str) -> None:
    spec = _job(model=family).multimodal

    settled = spec.settled(Task.REGRESSION)

    assert parse(Multimodal, spec.model_dump(mode="json", by_alias=True)) == spec
    assert (settled.family, settled.fusion) == (family, spec.fusion)


def test_a_late_fusion_is_what_it_was() -> None:
    spec = _job(model="late-fusion").multimodal

    assert (spec.family, spec.fusion) == ("late-fusion", Fusion(type="concat", dim=256))


def test_a_fusion_made_in_python_is_completed_as_one_in_json_is() -> None:
    spec = Multimodal(family="mult", fusion=Fusion(layers=1))

    assert spec.fusion == Fusion(type="cross_modal", dim=128, layers=1)


_MISFITS: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "mm-bert", "multimodal": {"family": "mult"}}, "model", "say one of them"),
    ({"model": "bert"}, "model", "late-fusion, clip, mm-bert, vilbert, mult"),
    ({"model": "mm-bert", "multimodal": {"fusion": {"type": "concat"}}}, "fusion.type", "leave the type out"),
    ({"model": "mm-bert", "multimodal": {"fusion": {"rank": 2}}}, "fusion.rank", "low_rank_tensor"),
    ({"model": "mult", "multimodal": {"fusion": {"dim": 50, "heads": 4}}}, "fusion.heads", "a multiple"),
    (
        {"model": "vilbert", "multimodal": {"towers": {"film": {"pool": "attention"}}}},
        "towers.film.pool",
        "leave pool out",
    ),
    (
        {"model": "late-fusion", "multimodal": {"fusion": {"type": "co_attention"}}},
        "fusion.type",
        "set family to vilbert",
    ),
    ({"model": "late-fusion", "multimodal": {"fusion": {"dropout": 0.0}}}, "fusion.dropout", "goes with"),
    (
        {"model": "late-fusion", "multimodal": {"towers": {"text": {"max_tokens": 8}}}},
        "towers.text.max_tokens",
        "goes with",
    ),
]


@pytest.mark.parametrize(("job", "path", "word"), _MISFITS)
def test_what_makes_no_sense_for_the_family_is_named(job: dict[str, Any], path: str, word: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        _job(**job)

    [problem] = refused.value.problems
    assert problem["path"] in (path, f"multimodal.{path}")
    assert word in problem["message"]


@pytest.mark.parametrize("spec", [None, 3, [], "x", {"fusion": None}, {"family": ["mm-bert"]}])
def test_a_job_of_a_family_with_nonsense_for_a_spec_is_refused(spec: Any) -> None:
    with pytest.raises(InvalidSpec):
        _job(model="mm-bert", multimodal=spec)
