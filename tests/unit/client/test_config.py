"""Where the client finds the address and the key."""

import json
from pathlib import Path

import pytest

from plait import Client, ConfigError

LOCAL = "http://127.0.0.1:8123/v1"
REMOTE = "https://plait.example.org/v1"


def write(path: Path, **about: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about))


def test_arguments_win_over_the_environment(monkeypatch):
    monkeypatch.setenv("PLAIT_BASE_URL", LOCAL)
    monkeypatch.setenv("PLAIT_API_KEY", "from-env")

    with Client("http://127.0.0.1:9/v1", "from-argument") as client:
        assert (client.config.base_url, client.config.api_key) == ("http://127.0.0.1:9/v1", "from-argument")


def test_the_environment_wins_over_the_file_of_the_server(tmp_path, monkeypatch):
    write(tmp_path / "plait.json", base_url=LOCAL, api_key="from-file")
    monkeypatch.setenv("PLAIT_BASE_URL", REMOTE)
    monkeypatch.setenv("PLAIT_API_KEY", "from-env")

    with Client() as client:
        assert (client.config.base_url, client.config.api_key) == (REMOTE, "from-env")


@pytest.mark.parametrize("name", [".plait/plait.json", "plait.json"])
def test_the_file_of_a_running_server_is_found_upwards_from_here(tmp_path, monkeypatch, name):
    write(tmp_path / name, base_url=LOCAL, api_key="from-file")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)

    with Client() as client:
        assert (client.config.base_url, client.config.api_key) == (LOCAL, "from-file")


def test_without_any_word_the_usual_local_address_is_tried():
    with Client() as client:
        assert client.config.base_url == "http://127.0.0.1:8000/v1"


def test_a_key_from_a_file_is_sent_to_the_address_in_that_file_only(tmp_path):
    write(tmp_path / "plait.json", base_url=LOCAL, api_key="from-file")

    with Client(REMOTE) as elsewhere, Client(LOCAL) as same:
        assert elsewhere.config.api_key is None
        assert same.config.api_key == "from-file"


def test_a_file_cannot_lead_the_users_key_to_another_host(tmp_path, monkeypatch):
    write(tmp_path / "plait.json", base_url=REMOTE)
    monkeypatch.setenv("PLAIT_API_KEY", "from-env")

    with pytest.raises(ConfigError, match=r"plait\.example\.org"):
        Client()


def test_another_key_may_be_used_on_the_local_server(tmp_path):
    write(tmp_path / "plait.json", base_url=LOCAL, api_key="from-file")

    with Client(api_key="another") as client:
        assert (client.config.base_url, client.config.api_key) == (LOCAL, "another")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"base_url": 3}'])
def test_a_broken_file_is_named(tmp_path, text):
    (tmp_path / "plait.json").write_text(text)

    with pytest.raises(ConfigError, match=r"plait\.json is not what `plait-server up` writes"):
        Client()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host/v1", "http://", "http://host:port/v1", "http://a b/v1\n/x\x00"]
)
def test_what_is_no_address_is_refused_with_an_example(url):
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:8000/v1"):
        Client(url)


def test_the_v1_of_an_address_may_be_forgotten():
    with Client("http://127.0.0.1:8123/") as client:
        assert client.config.base_url == LOCAL


def test_a_key_with_a_line_break_is_refused():
    with pytest.raises(ConfigError, match="characters that no key has"):
        Client(LOCAL, "plait-a\nb")


def test_the_key_stays_out_of_what_is_printed_of_a_config():
    with Client(LOCAL, "plait-secret") as client:
        assert "plait-secret" not in repr(client.config)
