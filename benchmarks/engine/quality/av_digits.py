"""Whether fusion pays on AV-digits: `nice python -m benchmarks.engine.quality.av_digits [--arms "a;b"] [--folds 0,1]`.

Five folds by voice; a picture is in one of them only. All encoders are frozen.
"""

from typing import Any

from benchmarks.engine.quality import stand_ins
from benchmarks.engine.quality.asking import asked
from benchmarks.engine.quality.study import Arm
from engine.samples import av_digits

PICTURE = {"encoder": "google/mobilenet_v2_1.0_224", "image_size": 96}
SOUND = {"encoder": "openai/whisper-tiny.en", "max_seconds": 1}


def arm(name: str, *columns: str, **rest: Any) -> Arm:
    towers = {"image": PICTURE, "audio": SOUND}
    return Arm(name, {"towers": {column: towers[column] for column in columns}, **rest})


FUSED = arm("fused", "image", "audio")
ARMS = {
    made.name: made
    for made in (FUSED, arm("image", "image"), arm("audio", "audio"), *stand_ins.arms(FUSED.spec))
}
#: Sounds as pictures: what an image encoder tells of their spectrograms.
ARMS["spectrogram"] = Arm("spectrogram", {"towers": {"audio": {**PICTURE, "max_seconds": 1}}})


def main() -> None:
    options = asked(__doc__, "av_digits", ARMS, group="voice")
    av_digits.build(options.data, progress=print)
    options.study.run(options.arms, options.folds, options.seeds)


if __name__ == "__main__":
    main()
