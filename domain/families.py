"""A spec's `family`: which fusion it is made of, and what of a spec makes no sense for it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from domain.fusions import Fusion

if TYPE_CHECKING:  # the spec knows its family
    from domain.specs import Multimodal

Family = Literal["late-fusion", "clip", "mm-bert", "vilbert", "mult", "mm-gan", "vlm"]

#: Names of whole choices of encoders.
Preset = Literal["video-audio-clip"]

FAMILIES: tuple[str, ...] = get_args(Family)
PRESETS: tuple[str, ...] = get_args(Preset)

#: The families that have a task of their own: each means the other.
TASK_OF = {"clip": "contrastive", "vlm": "generation"}

#: The families whose fusion reads the towers' tokens, and that fusion: it is theirs alone.
TOKEN_FUSIONS = {"mm-bert": "single_stream", "vilbert": "co_attention", "mult": "cross_modal"}

#: Of a fusion over tokens, where the spec does not say: a wider one learns small data by heart, and four times as slowly.
TOKEN_DIM = 128

#: What a fusion over tokens alone has.
TOKEN_OPTIONS = ("layers", "heads", "dropout")


def reads_tokens(family: str) -> bool:
    """Whether its towers give a sequence of vectors, and not one."""
    return family in TOKEN_FUSIONS


def implied(spec: Any) -> Any:
    """A spec as it was sent, with what its family means: its task and its fusion, where they are left open."""
    if not isinstance(spec, Mapping):
        return spec
    told = dict(spec)
    family, task = told.get("family"), told.get("task", "auto")
    if family is None:
        told.update(("family", of) for of, own in TASK_OF.items() if task == own)
    elif task == "auto" and isinstance(family, str) and family in TASK_OF:
        told["task"] = TASK_OF[family]
    if told.get("family") == "vlm" and told.get("language_model") is None:
        told["language_model"] = {}
    return _with_fusion(told)


def _with_fusion(spec: dict[str, Any]) -> dict[str, Any]:
    family, said = spec.get("family"), spec.get("fusion", {})
    if isinstance(said, Fusion):
        said = said.model_dump(exclude_unset=True)
    # What is no fusion at all is refused where fusions are read.
    if not isinstance(family, str) or not reads_tokens(family) or not isinstance(said, Mapping):
        return spec
    return {**spec, "fusion": {"type": TOKEN_FUSIONS[family], "dim": TOKEN_DIM, **said}}


def with_family(job: Any) -> Any:
    """A job as it was sent: the family or preset that its `model` names is that of its spec, where that says none."""
    model = job.get("model") if isinstance(job, Mapping) else None
    if model not in FAMILIES + PRESETS:
        return job
    spec, field = job.get("multimodal", {}), "preset" if model in PRESETS else "family"
    return {**job, "multimodal": {field: model, **spec}} if isinstance(spec, Mapping) else job


def task_misfits(family: str, task: str) -> Iterator[tuple[str, str]]:
    """The reason why a family and a decided task do not go together, if they do not."""
    for of, own in TASK_OF.items():
        if task == own and family != of:
            yield (
                "family",
                f"the task is {task}, which is the family {of}'s, not {family}'s; leave the family out",
            )
        if family == of and task != own:
            yield (
                "family",
                f"the family is {family}, whose task is {own}, not {task}; leave one of the two out",
            )


def misfits(spec: "Multimodal") -> Iterator[tuple[str, str]]:
    """The path and the reason of every option that makes no sense for the spec's family."""
    if spec.task != "auto":
        yield from task_misfits(spec.family, spec.task)
    yield from _of_language(spec)
    yield from (_of_tokens if reads_tokens(spec.family) else _of_vectors)(spec)


def _of_language(spec: "Multimodal") -> Iterator[tuple[str, str]]:
    if spec.family != "vlm" and spec.language_model is not None:
        yield "language_model", f"the family is {spec.family}; a language model is of the family vlm"
    if spec.family == "vlm" and spec.fusion != Fusion(modality_dropout=spec.fusion.modality_dropout):
        reason = (
            "the family is vlm, which fuses inside of the language model; leave all but modality_dropout out"
        )
        yield "fusion", reason


def _of_tokens(spec: "Multimodal") -> Iterator[tuple[str, str]]:
    family, fusion = spec.family, spec.fusion
    if fusion.type != TOKEN_FUSIONS[family]:
        yield "fusion.type", f"the family {family} has a fusion of its own; leave the type out"
    if fusion.heads is not None and fusion.dim % fusion.heads:
        yield (
            "fusion.heads",
            f"{fusion.heads} heads cannot share a dim of {fusion.dim}; it must be a multiple",
        )
    for name, tower in sorted(spec.towers.items()):
        if tower.pool != "mean":
            reason = f"the family {family} reads a film frame by frame and pools none; leave pool out"
            yield f"towers.{name}.pool", reason


def _of_vectors(spec: "Multimodal") -> Iterator[tuple[str, str]]:
    family, fusion, others = spec.family, spec.fusion, ", ".join(TOKEN_FUSIONS)
    for owner, kind in TOKEN_FUSIONS.items():
        if fusion.type == kind:
            yield "fusion.type", f"{kind} is the fusion of the family {owner}; set family to {owner}"
    for option in TOKEN_OPTIONS:
        if getattr(fusion, option) is not None:
            yield f"fusion.{option}", f"the family is {family}; {option} goes with {others}"
    for name, tower in sorted(spec.towers.items()):
        if tower.max_tokens is not None:
            reason = (
                f"the family is {family}, which reads one vector of a cell; max_tokens goes with {others}"
            )
            yield f"towers.{name}.max_tokens", reason
