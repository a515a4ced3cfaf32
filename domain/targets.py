"""Where a user may have requests sent to: a rule about the URL, and one about the addresses of its host.

Without them a user could make this server ask machines that only it can reach (server-side request forgery).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NoReturn
from urllib.parse import urlsplit

from domain.errors import BadRequest, PlaitError

LONGEST_URL = 2048

Address = IPv4Address | IPv6Address

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
#: Hosts that a resolver reads as an IPv4 address though they are not written as one: 0x7f.1, 2130706433, 127.1
_NUMBER = re.compile(r"(?:.*\.)?(?:\d+|0[xX][0-9A-Fa-f]*)")
#: All addresses of IPv6 that are handed out to anybody.
_GLOBAL_IPV6 = IPv6Network("2000::/3")
#: An IPv6-only network reaches IPv4 through these (RFC 6052): what counts is the address inside.
_NAT64 = IPv6Network("64:ff9b::/96")
#: Inside, though `ipaddress` takes them for public (the first and the last: in some versions of Python): the block
#: of protocol assignments (RFC 6890), where Oracle's cloud has its metadata; relays of 6to4 (RFC 7526); the host
#: agent of Azure; addresses for documentation (RFC 9637).
_INSIDE = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "3fff::/20")))


@dataclass(frozen=True)
class Target:
    """A URL in its parts; `path` carries the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def literal(self) -> Address | None:
        """The host where it is an address and no name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


@dataclass(frozen=True)
class Allowed:
    """The hosts and networks that the operator opens, although they are not public."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, words: Iterable[str]) -> "Allowed":
        """From `["hooks.internal", "10.1.0.0/16", "127.0.0.1"]`."""
        hosts, networks = set(), []
        for word in words:
            try:
                networks.append(ip_network(word))
            except ValueError:
                hosts.add(_host_of_setting(word))
        return cls(frozenset(hosts), tuple(networks))

    def has(self, target: Target, addresses: Iterable[Address]) -> bool:
        opened = [any(address in network for network in self.networks) for address in addresses]
        return target.host in self.hosts or (bool(opened) and all(opened))


def _host_of_setting(word: str) -> str:
    if not _NAME.fullmatch(word) or _NUMBER.fullmatch(word):
        raise PlaitError(
            f"PLAIT_WEBHOOK_ALLOW: {word!r} is neither a host nor a network such as 10.1.0.0/16."
        )
    return word.lower()


def parse(url: str) -> Target:
    """The parts of a URL; BadRequest, with what is wrong, where no request may go there whatever its host is."""
    if len(url) > LONGEST_URL:
        refuse(f"it is longer than {LONGEST_URL} characters")
    if not url.isascii() or not url.isprintable() or set(url) & set(' "<>\\^`{|}'):
        refuse("it holds characters that must be escaped; write a host of another script in its xn-- form")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        refuse(str(error))
    if parts.scheme not in ("https", "http"):
        refuse("it must begin with https://")
    if "@" in parts.netloc:
        refuse("it must not carry a user or a password; the signature says who sends")
    if "#" in url:
        refuse("it must not have a fragment")
    host = (parts.hostname or "").removesuffix(".")
    if not _is_host(host, bracketed="[" in parts.netloc):
        refuse("its host must be a name or an address in its usual form")
    if port == 0:
        refuse("its port is no port")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path)


def _is_host(host: str, *, bracketed: bool) -> bool:
    if bracketed:
        # A zone ("%eth0") names an interface of this machine.
        return "%" not in host and _is_address(host)
    return _is_address(host) or (bool(_NAME.fullmatch(host)) and not _NUMBER.fullmatch(host))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def judge(target: Target, addresses: Iterable[Address], allowed: Allowed) -> None:
    """BadRequest unless a request may go to `target`, whose host has these addresses: each of them counts.

    Plain http is for what the operator allows: elsewhere anybody on the way could read and change it.
    """
    found = list(addresses)
    if allowed.has(target, found):
        return
    if target.scheme != "https":
        refuse("it must begin with https://")
    if not all(is_public(address) for address in found):
        refuse(
            "its host has an address that is not public; "
            "the operator can allow it with the setting PLAIT_WEBHOOK_ALLOW"
        )


def is_public(address: Address) -> bool:
    """Whether this is an address of the open internet, and of one host."""
    if isinstance(address, IPv6Address):
        inner = _inside(address)
        if inner is not None:
            return is_public(inner)
        # 6to4 and Teredo carry packets to whatever IPv4 address is written into them.
        if address not in _GLOBAL_IPV6 or address.sixtofour is not None or address.teredo is not None:
            return False
    if any(address in network for network in _INSIDE):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_loopback)


def _inside(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that this one stands for."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped


def refuse(why: str) -> NoReturn:
    raise BadRequest(f"Requests cannot be sent to this URL: {why}.", code="webhook_url_refused", param="url")
