"""How well digits are told in films: `nice python -m benchmarks.engine.quality.moving_av_digits [--arms "a;b"] [--folds 0,1]`.

Five folds by voice. The label is the digit, of frames and sound; all encoders are frozen.
"""

from benchmarks.engine.quality.asking import asked
from benchmarks.engine.quality.study import Arm
from engine.samples import moving_av_digits
from engine.samples.moving_av_digits import Recipe

FRAMES = {"encoder": "google/mobilenet_v2_1.0_224", "image_size": 192, "num_frames": 8, "pool": "mean"}
SOUND = {"encoder": "openai/whisper-tiny.en", "max_seconds": 1}
SCHEMA = {"columns": {"clip": {"type": "video", "use_audio": True}}}

ARMS = {
    name: Arm(name, {"schema": SCHEMA, "towers": towers})
    for name, towers in {
        "fused": {"clip": FRAMES, "clip.audio": SOUND},
        "frames": {"clip": FRAMES},
        "sound": {"clip.audio": SOUND},
    }.items()
}


def main() -> None:
    options = asked(__doc__, "moving_av_digits", ARMS, group="voice")
    moving_av_digits.build(options.data, Recipe(label="digit"), progress=print)
    options.study.run(options.arms, options.folds, options.seeds)


if __name__ == "__main__":
    main()
