"""Short films of a bright square that moves to the left or to the right, with or without a tone."""

import io

import av
import numpy as np

_RATE, _PER_SECOND = 16_000, 10


def moving(way: str, *, frames: int = 6, seed: int = 0, px: int = 32, tone: float | None = None) -> bytes:
    """An MP4 of `frames`, ten a second, each way through the same places; `tone` is a pitch in hertz, or no sound track."""
    rng, buffer = np.random.default_rng(seed), io.BytesIO()
    top = int(rng.integers(2, px - 14))
    places = np.linspace(0, px - 12, frames).round().astype(int)
    with av.open(buffer, "w", format="mp4") as out:
        pictures = out.add_stream("mpeg4", rate=_PER_SECOND)
        pictures.width, pictures.height, pictures.pix_fmt = px, px, "yuv420p"
        sound = out.add_stream("aac", rate=_RATE, layout="mono") if tone else None
        for place in places if way == "right" else places[::-1]:
            pixels = rng.integers(0, 60, (px, px, 3), dtype=np.uint8)
            pixels[top : top + 12, place : place + 12] = 230
            out.mux(pictures.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(pictures.encode())
        if sound is not None and tone is not None:
            time = np.arange(frames * _RATE // _PER_SECOND) / _RATE
            wave = (0.5 * np.sin(2 * np.pi * tone * time)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
            frame.sample_rate, frame.pts = _RATE, 0
            out.mux(sound.encode(frame))
            out.mux(sound.encode())
    return buffer.getvalue()
