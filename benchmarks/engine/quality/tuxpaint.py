"""Whether fusion pays on Tux Paint stamps: `nice python -m benchmarks.engine.quality.tuxpaint [--arms "a;b"] [--folds 0,1]`.

Five folds by description. Pictures go through a frozen encoder; texts through a frozen one, or one that is trained.
"""

from benchmarks.engine.quality import stand_ins
from benchmarks.engine.quality.asking import asked
from benchmarks.engine.quality.study import Arm
from engine.samples import tuxpaint

PICTURE = {"encoder": "google/mobilenet_v2_1.0_224"}
TEXT = {"encoder": "sentence-transformers/all-MiniLM-L6-v2", "max_length": 32}
TUNED = {**TEXT, "freeze": False, "lr": 1e-4}
#: In the time that the trained text tower takes.
TUNING = {"n_epochs": 6}

FROZEN = Arm("fused", {"towers": {"image": PICTURE, "caption": TEXT}})
ARMS = {
    made.name: made
    for made in (
        FROZEN,
        Arm("image", {"towers": {"image": PICTURE}}),
        Arm("caption", {"towers": {"caption": TEXT}}),
        Arm(
            "fused, text tuned",
            {"towers": {"image": PICTURE, "caption": TUNED}, "hyperparameters": TUNING},
        ),
        Arm("caption, tuned", {"towers": {"caption": TUNED}, "hyperparameters": TUNING}),
        *stand_ins.arms(FROZEN.spec),
    )
}


def main() -> None:
    options = asked(__doc__, "tuxpaint", ARMS, group="description")
    tuxpaint.build(options.data, package=options.package, progress=print)
    options.study.run(options.arms, options.folds, options.seeds)


if __name__ == "__main__":
    main()
