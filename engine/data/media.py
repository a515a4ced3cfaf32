"""How media are decoded: in this process, or in others that have limits of time and memory. Loads no torch."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.data.probe import Probe, is_silent, probe_media
from engine.data.values import Read, read_value


@dataclass(frozen=True)
class Media:
    """The three questions that are asked of a medium's bytes, which may be a stranger's."""

    #: Its value. Raises Undecodable.
    read: Read = read_value
    #: What it is, once it is known that it can be read. Raises Undecodable.
    probe: Probe = probe_media
    #: Whether it is a film, or another file that FFmpeg knows, without a sound track.
    is_silent: Callable[[bytes], bool] = is_silent


#: Needs no end, and suits one's own files; of a stranger's take `engine.data.decoders.pool.Decoders().media`.
IN_PLACE = Media()
