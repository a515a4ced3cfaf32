"""torchvision's MobileNetV2 weights as a Hugging Face folder. Same layers in the same order, other names."""

from pathlib import Path

import torch
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, MobileNetV2ImageProcessor


def convert(pth: Path, out: Path) -> None:
    """Writes config, safetensors and preprocessor to `out`. `pth` must have been checked by its SHA-256."""
    weights = torch.load(pth, weights_only=True, map_location="cpu")
    config = MobileNetV2Config(
        tf_padding=False,
        layer_norm_eps=1e-5,
        num_labels=1000,
        image_size=224,
        first_layer_is_expansion=True,
        finegrained_output=True,
        classifier_dropout_prob=0.2,
    )
    model = MobileNetV2ForImageClassification(config)
    ours = model.state_dict()
    if [w.shape for w in ours.values()] != [w.shape for w in weights.values()]:
        raise ValueError("the weights are not those of MobileNetV2 1.0")
    model.load_state_dict(dict(zip(ours, weights.values(), strict=True)))
    model.save_pretrained(out)
    MobileNetV2ImageProcessor(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(out)
