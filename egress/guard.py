"""Lets a URL through or not: looks its host up once, and says to which addresses a request may go.

Whoever sends connects to these addresses and to no others: a name that is looked up again may have another
answer by then (DNS rebinding).
"""

import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from queue import Empty, SimpleQueue

from domain.targets import Address, Allowed, Target, judge, parse

#: (host, port, seconds) -> its addresses; Unresolved where there are none.
LookUp = Callable[[str, int, float], Sequence[Address]]


class Unresolved(Exception):
    """A host has no address, or nobody says so in time."""


@dataclass(frozen=True)
class Way:
    """A target, and the addresses at which it may be asked."""

    target: Target
    addresses: Sequence[Address]


def look_up(host: str, port: int, timeout_s: float) -> Sequence[Address]:
    """The addresses of a host, by the system's resolver, each once."""
    answer: SimpleQueue[Sequence[Address] | Unresolved] = SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answer.put(Unresolved(f"{host} has no address ({error})"))
        else:
            answer.put(list(dict.fromkeys(ip_address(str(entry[4][0])) for entry in found)))

    # The resolver knows no timeout of ours; a thread that waits for it holds nothing but itself.
    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        found = answer.get(timeout=timeout_s)
    except Empty:
        raise Unresolved(f"nobody says within {timeout_s:g} s which addresses {host} has") from None
    if isinstance(found, Unresolved):
        raise found
    return found


class Guard:
    """The rule of `domain.targets` with what the operator allows. `look_up` is an argument for tests."""

    def __init__(self, allowed: Iterable[str] = (), look_up: LookUp = look_up) -> None:
        self._allowed, self._look_up = Allowed.of(allowed), look_up

    def admit(self, url: str, *, timeout_s: float) -> Way:
        """The way to this URL; BadRequest where requests may not go there, Unresolved where there is no way."""
        target = parse(url)
        literal = target.literal
        addresses = [literal] if literal else self._look_up(target.host, target.port, timeout_s)
        judge(target, addresses, self._allowed)
        return Way(target, addresses)
