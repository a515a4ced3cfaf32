"""Where requests may be sent: every way to write an address that is not for users is refused."""

from ipaddress import ip_address

import pytest

from domain.errors import BadRequest, PlaitError
from domain.targets import Allowed, is_public, judge, parse

NOBODY = Allowed()


def refused(url: str) -> str:
    with pytest.raises(BadRequest) as told:
        parse(url)
    assert (told.value.code, told.value.param) == ("webhook_url_refused", "url")
    return told.value.message


def test_a_url_is_taken_apart() -> None:
    target = parse("https://Hooks.Example.com:8443/plait/a?key=1&b")

    assert (target.scheme, target.host) == ("https", "hooks.example.com")
    assert (target.port, target.path) == (8443, "/plait/a?key=1&b")
    assert parse("https://example.com").port == 443
    assert (parse("http://example.com.").port, parse("http://example.com.").host) == (80, "example.com")
    assert parse("https://[2606:4700::1111]/").host == "2606:4700::1111"


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.1", "127.0.0.1.1", "a.0x1"],
)
def test_an_address_in_an_unusual_spelling_is_refused_whatever_it_means(host: str) -> None:
    assert "usual form" in refused(f"https://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "https://",
        "https:///path",
        "https://user:word@example.com/",
        "https://example.com@10.0.0.1/",
        "https://@example.com/",
        "https://example.com/#part",
        "https://example.com\\@10.0.0.1/",
        "https://exa mple.com/",
        "https://example.com/\r\nHost: x",
        "https://example.com/\0",
        "https://bücher.example/",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://example.com:port/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://[v1.x]/",
        "https://-.example/",
        "https://a..b/",
        "https://" + "a" * 64 + ".example/",
        "https://example.com/" + "a" * 2048,
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    refused(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.8",
        "192.0.0.192",
        "192.88.99.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "2001:0:1::1",
        "2001:db8::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_an_address_that_is_not_of_the_open_internet_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_an_address_of_the_open_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_every_address_of_a_host_counts() -> None:
    target = parse("https://example.com/")
    public, inside = ip_address("8.8.8.8"), ip_address("10.0.0.1")

    judge(target, [public], NOBODY)

    with pytest.raises(BadRequest, match="PLAIT_WEBHOOK_ALLOW"):
        judge(target, [public, inside], NOBODY)


def test_plain_http_goes_only_where_the_operator_allows_it() -> None:
    public = [ip_address("8.8.8.8")]

    with pytest.raises(BadRequest, match="https"):
        judge(parse("http://example.com/"), public, NOBODY)
    judge(parse("http://example.com/"), public, Allowed.of(["example.com"]))
    judge(parse("http://example.com/"), public, Allowed.of(["8.8.8.0/24"]))


def test_the_operator_allows_hosts_and_networks_and_nothing_beside_them() -> None:
    allowed = Allowed.of(["Hooks.Internal", "10.1.0.0/16", "127.0.0.1"])
    inside, beside = ip_address("10.1.2.3"), ip_address("10.2.0.1")

    judge(parse("http://hooks.internal/"), [beside], allowed)
    judge(parse("http://x.example/"), [inside, ip_address("127.0.0.1")], allowed)

    for target, addresses in (
        ("http://hooks.internal.example/", [beside]),
        ("https://x.example/", [inside, beside]),
        ("http://x.example/", []),
    ):
        with pytest.raises(BadRequest):
            judge(parse(target), addresses, allowed)


@pytest.mark.parametrize("word", ["10.0.0.0/99", "10.0.0.1/8", "a b", "127.1", "https://x", "*.example.com"])
def test_a_setting_that_is_neither_host_nor_network_is_told_at_the_start(word: str) -> None:
    with pytest.raises(PlaitError, match="PLAIT_WEBHOOK_ALLOW"):
        Allowed.of([word])
