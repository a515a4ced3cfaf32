"""MobileNetV2 and SmolLM2 as a model that sees and writes: drawn digits, real weights, a few steps on one core."""

import json
from pathlib import Path

import pytest

from domain.specs import Multimodal
from engine.hub import mirror
from engine.infer import Writer, load
from engine.samples import av_digits
from engine.train.run import Finished, train
from support.datasets import zip_of

MIRROR = Path(__file__).parents[2] / ".plait" / "encoders"
WORDS = {"0": "zero", "1": "one"}
QUESTION = "Which digit is this?"
SPEC = {
    "family": "vlm",
    "towers": {"image": {"image_size": 96}, "question": {}},
    "language_model": {"media_tokens": 9, "max_answer_length": 6, "lr": 4e-4},
    "fusion": {"modality_dropout": 0.0},
    "hyperparameters": {
        "n_epochs": 6,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "warmup_ratio": 0.05,
        "precision": "bf16",
        "eval_steps": 1000,
        "save_steps": 1000,
    },
}


def find(encoder: str) -> Path:
    return mirror.pull([encoder], mirror=MIRROR)[encoder]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_weights_learn_in_a_few_steps_what_an_answer_looks_like(tmp_path: Path) -> None:
    """Which digit it is takes them longer than a test may."""
    av_digits.build(tmp_path / "digits", limit=160)
    lines = (tmp_path / "digits" / "metadata.jsonl").read_text().splitlines()
    told = [row for line in lines if (row := json.loads(line))["label"] in WORDS]
    rows = [
        {
            "image_file_name": row["image_file_name"],
            "question": QUESTION,
            "label": WORDS[row["label"]],
            "split": row["split"],
        }
        for row in told
    ]
    media = {
        name: (tmp_path / "digits" / name).read_bytes() for row in rows if (name := row["image_file_name"])
    }
    train_losses: list[float] = []

    finished = train(
        Multimodal.model_validate(SPEC),
        training=zip_of(tmp_path / "asked.zip", rows, media),
        encoders=find,
        cache=tmp_path / "cache",
        out=tmp_path / "out",
        seed=1,
        report=lambda said: train_losses.extend(
            value for name, value in (said.metrics or {}).items() if name == "train_loss"
        ),
    )

    assert isinstance(finished, Finished)
    assert train_losses[0] > 3
    assert train_losses[-1] < 1.5
    folder = tmp_path / "out" / "model"
    # Adapters and projector, not the 538 MB of the language model.
    assert (folder / "model.safetensors").stat().st_size < 30_000_000
    model = load(folder, find)
    assert isinstance(model, Writer)
    answers = model.predict(
        [{"image": media[row["image_file_name"]], "question": QUESTION} for row in rows[:6]]
    )
    assert {answer.text for answer in answers} <= set(WORDS.values())
    assert {answer.finish_reason for answer in answers} == {"stop"}
