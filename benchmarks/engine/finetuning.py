"""How much of an encoder to train, and how fast: one column of AV-digits, by method and learning rate.

`python -m benchmarks.engine.finetuning ENCODERS --method lora 0.001`; ENCODERS holds `openai/whisper-tiny.en` and
`google/mobilenet_v2_1.0_224`, as `plait-server encoders pull` writes them. Prints a line a run.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import click

from domain.specs import Multimodal
from engine.samples import av_digits
from engine.train.run import Finished, train

#: By column: its encoder and how it is read.
TOWERS: dict[str, dict[str, Any]] = {
    "audio": {"encoder": "openai/whisper-tiny.en", "max_seconds": 1},
    "image": {"encoder": "google/mobilenet_v2_1.0_224", "image_size": 96},
}
METHODS: dict[str, dict[str, Any]] = {
    "frozen": {},
    "lora": {"lora": {"r": 8, "alpha": 16}},
    "whole": {"freeze": False},
    "layer decay": {"freeze": False, "layer_decay": 0.8},
}


@click.command()
@click.argument("encoders", type=click.Path(exists=True, path_type=Path))
@click.option("--column", type=click.Choice(list(TOWERS)), default="audio")
@click.option("--rows", default=400, help="Of the data set, all splits together.")
@click.option("--epochs", default=5)
@click.option(
    "--method", "methods", multiple=True, type=(click.Choice(list(METHODS)), float), help="And its rate."
)
@click.option("--seeds", default=1)
def main(
    encoders: Path, column: str, rows: int, epochs: int, methods: tuple[tuple[str, float], ...], seeds: int
) -> None:
    """Trains each method with its rate, on the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        data = av_digits.build(Path(folder) / "digits", limit=rows)
        for method, rate in methods:
            for seed in range(seeds):
                tower = TOWERS[column] | METHODS[method] | ({} if method == "frozen" else {"lr": rate})
                _measure(
                    Path(folder), data, encoders, {column: tower}, epochs, seed, f"{method:<12} {rate:g}"
                )


def _measure(
    folder: Path, data: Path, encoders: Path, towers: dict[str, Any], epochs: int, seed: int, name: str
) -> None:
    spec = {"towers": towers, "hyperparameters": {"n_epochs": epochs, "batch_size": 16}}
    began = time.process_time()
    ending = train(
        Multimodal.model_validate(spec),
        training=data,
        encoders=encoders.__truediv__,
        cache=folder / "cache",
        out=folder / f"{name}-{seed}".replace(" ", "-"),
        seed=seed,
    )
    assert isinstance(ending, Finished)
    found = ending.metrics
    numbers = f"test accuracy {found['test_accuracy']:.3f}, loss {found['test_loss']:.3f}"
    print(f"{name}, seed {seed}: {numbers}, {time.process_time() - began:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
