"""A model folder: what it says of itself, and that folders of earlier versions still load."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from domain.tasks import Task
from engine.data.targets import Scale
from engine.models.multimodal import Live
from engine.models.store import load_model

#: A model of the first version: a frozen text encoder, a trained picture encoder, and their own files.
GOLDEN = Path(__file__).parents[2] / "golden" / "model_format_1"


def test_a_model_folder_of_the_first_version_gives_the_logits_that_it_gave_then() -> None:
    model, card = load_model(GOLDEN / "model", lambda name: GOLDEN / "encoders" / name)

    pixels = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    pictures = [pixels, pixels[::-1].copy(), pixels.transpose(1, 0, 2).copy()]
    texts = ["a red shape with 3 corners", "a blue shape with 5 corners", "x"]
    inputs = {
        "text": Live(model.encoder("text").prepare(texts), torch.arange(3)),
        "image": Live(model.encoder("image").prepare(pictures), torch.arange(3)),
    }
    with torch.no_grad():
        logits = model(inputs, torch.tensor([[True, True], [False, True], [True, False]]))

    expected = torch.tensor(json.loads((GOLDEN / "logits.json").read_text()))
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
    assert (card.spec.task, card.classes, card.target) == (
        Task.CLASSIFICATION,
        ["class-0", "class-1", "class-2"],
        None,
    )


def test_a_scale_leads_back_to_the_datas_own_numbers() -> None:
    scale = Scale(1e6, 0.5)

    there = torch.tensor([scale.standardised(1e6 + 0.25)])

    assert scale.undone(there).item() == pytest.approx(1e6 + 0.25, abs=1e-6)
