"""Words spoken by eSpeak NG. It knows voices and words, and nothing of digits, noise or data sets.

eSpeak is a C library with one global state, so it runs in a process of its own: `python -m engine.samples.speech OUT`
reads the words as JSON from its input and writes what it said to OUT.
"""

import ctypes
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

from domain.errors import EngineError

# Names and numbers out of espeak-ng's speak_lib.h.
SYNCHRONOUS = 2
DONT_EXIT = 0x8000
RATE, PITCH = 1, 3
UTF8 = 1

Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Word:
    text: str
    accent: str
    voice: str
    rate: int
    pitch: int


def voices() -> list[str]:
    """The voice variants that the wheel brings. A name with a blank in it is left out: eSpeak cannot load it."""
    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    return sorted(file.name for file in folder.iterdir() if " " not in file.name)


def speak(words: Sequence[Word]) -> tuple[int, list[Wave]]:
    """The sampling rate, and each word as mono samples in [-1, 1].

    The same words in the same order sound the same to the last bit; in another order they do not, for eSpeak's
    oscillators run on from word to word. The first words of a longer list are the same as those of a shorter one.
    """
    with TemporaryDirectory() as folder:
        out = Path(folder) / "said.npz"
        child = subprocess.run(
            [sys.executable, "-m", "engine.samples.speech", str(out)],
            cwd=Path(__file__).parents[2],
            input=json.dumps([asdict(word) for word in words]),
            capture_output=True,
            text=True,
        )
        if child.returncode != 0:
            raise EngineError("sample_failed", f"eSpeak could not speak: {child.stderr.strip()[-500:]}")
        with np.load(out, allow_pickle=False) as said:
            sampling_rate, samples, ends = int(said["sampling_rate"]), said["samples"], said["ends"]
    waves = np.split(samples.astype(np.float32) / 32768, ends[:-1])
    return sampling_rate, waves


class _Espeak:
    """The library, started once in this process."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.heard: list[NDArray[np.int16]] = []
        data = str(espeakng_loader.get_data_path()).encode()
        self.sampling_rate = int(self.library.espeak_Initialize(SYNCHRONOUS, 0, data, DONT_EXIT))
        if self.sampling_rate <= 0:
            raise RuntimeError("espeak_Initialize failed")
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        # Kept on the object: the library calls it long after this line, and Python would collect it.
        self.callback = kind(self._hear)
        self.library.espeak_SetSynthCallback(self.callback)
        # eSpeak seeds itself by the clock, and breathy voices draw on that and on C's rand().
        self.library.espeak_ng_SetRandSeed(1)
        ctypes.CDLL(None).srand(1)

    def _hear(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if samples and count > 0:
            self.heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, word: Word) -> NDArray[np.int16]:
        self.heard.clear()
        name = f"{word.accent}+{word.voice}"
        if self.library.espeak_SetVoiceByName(name.encode()) != 0:
            raise RuntimeError(f"no voice {name}")
        self.library.espeak_SetParameter(RATE, word.rate, 0)
        self.library.espeak_SetParameter(PITCH, word.pitch, 0)
        text = word.text.encode()
        self.library.espeak_Synth(text, len(text) + 1, 0, 0, 0, UTF8, None, None)
        self.library.espeak_Synchronize()
        if not self.heard:
            raise RuntimeError(f"{name} said nothing for {word.text!r}")
        return np.concatenate(self.heard)


def main(out: str) -> None:
    espeak = _Espeak()
    said = [espeak.say(Word(**word)) for word in json.load(sys.stdin)]
    np.savez(
        out,
        sampling_rate=espeak.sampling_rate,
        samples=np.concatenate(said),
        ends=np.cumsum([len(wave) for wave in said]),
    )


if __name__ == "__main__":
    main(sys.argv[1])
