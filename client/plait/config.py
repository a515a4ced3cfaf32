"""Finds the server's address and the key: arguments, environment, or the file of `plait-server up`.

The only place of the client that reads the environment. Knows no HTTP.
"""

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from plait.errors import ConfigError

DEFAULT_BASE_URL = "http://127.0.0.1:8000/v1"
NAMES = (".plait/plait.json", "plait.json")
_SET_BOTH = "Set PLAIT_BASE_URL and PLAIT_API_KEY, or run in the folder where `plait-server up` runs."


@dataclass(frozen=True, slots=True)
class Config:
    """Where requests go, and with which key."""

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    #: Where the address was found, in words for an error.
    source: str = "the default"
    key_source: str = "the argument api_key"

    @property
    def is_local(self) -> bool:
        return is_local(self.base_url)


def cache_folder() -> Path:
    """Where this user's programs keep what they can do without."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait"


def discover(base_url: str | None = None, api_key: str | None = None) -> Config:
    """Arguments before the environment before the nearest file upwards from the current folder."""
    return choose(base_url, api_key, env=os.environ, start=Path.cwd())


def choose(base_url: str | None, api_key: str | None, *, env: Mapping[str, str], start: Path) -> Config:
    url, source = _first((base_url, "the argument base_url"), (env.get("PLAIT_BASE_URL"), "PLAIT_BASE_URL"))
    key, key_source = _first((api_key, "the argument api_key"), (env.get("PLAIT_API_KEY"), "PLAIT_API_KEY"))
    given = Config(_checked_url(url or DEFAULT_BASE_URL, source), _checked_key(key), source, key_source)
    found = None if url and key else nearest(start)
    if found is None:
        return given
    if url:
        # The key of a file goes to the address of that file only.
        same = found.base_url == given.base_url
        return replace(given, api_key=found.api_key, key_source=found.source) if same else given
    if key and not found.is_local:
        # A file in a cloned folder must not lead your key to a stranger's host.
        raise ConfigError(
            f"{found.source} names {found.base_url}, but the key is not from there.", hint=_SET_BOTH
        )
    return replace(found, api_key=given.api_key, key_source=key_source) if key else found


def _first(*pairs: tuple[str | None, str]) -> tuple[str | None, str]:
    """The first that is set, with where it is from."""
    return next((pair for pair in pairs if pair[0]), (None, "the default"))


def nearest(start: Path) -> Config | None:
    """What `plait-server up` wrote in this folder or the nearest above it."""
    for folder in (start, *start.parents):
        for name in NAMES:
            try:
                text = (folder / name).read_text(encoding="utf-8")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{folder / name} cannot be read: {error}.", hint=_SET_BOTH) from None
            return _parsed(text, folder / name)
    return None


def _parsed(text: str, path: Path) -> Config:
    try:
        about = json.loads(text)
    except ValueError:
        about = None
    if not isinstance(about, dict) or not isinstance(about.get("base_url"), str):
        raise ConfigError(f"{path} is not what `plait-server up` writes.", hint=_SET_BOTH)
    key = about.get("api_key")
    return Config(
        _checked_url(about["base_url"], str(path)),
        _checked_key(key if isinstance(key, str) else None),
        source=str(path),
        key_source=str(path),
    )


def _checked_url(url: str, source: str) -> str:
    """The address with its `/v1`, which is easily forgotten."""
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        wrong = True
    if wrong or not url.isascii() or not url.isprintable():
        raise ConfigError(f"{source}: {url!r} is not an address; write it as in {DEFAULT_BASE_URL}.")
    return url if parts.path else f"{url}/v1"


def _checked_key(key: str | None) -> str | None:
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("The API key holds characters that no key has.", hint=_SET_BOTH)
    return key or None


def is_local(url: str) -> bool:
    """Whether the address is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
