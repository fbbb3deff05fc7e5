"""What the agent understands of a kubeconfig file."""

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from neuron_dra_driver.api_server import kubeconfig
from neuron_dra_driver.errors import AgentError


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(user: dict[str, Any], **cluster: Any) -> Path:
        path = tmp_path / "config"
        config = {
            "current-context": "there",
            "clusters": [{"name": "c", "cluster": {"server": "http://host:1", **cluster}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [
                {"name": "elsewhere", "context": {}},
                {"name": "there", "context": {"cluster": "c", "user": "u"}},
            ],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    return write


async def test_a_token_and_where_to(write: Any) -> None:
    access = kubeconfig.read(write({"token": "abc"}))
    assert access.url == "http://host:1"
    assert await access.authorization() == "Bearer abc"


async def test_a_file_with_a_token_is_read_for_every_call(write: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n")
    access = kubeconfig.read(write({"tokenFile": "token"}))
    assert await access.authorization() == "Bearer one"
    (tmp_path / "token").write_text("two\n")
    assert await access.authorization() == "Bearer two"


async def test_nobody_needs_to_be_shown_who_asks(write: Any) -> None:
    assert await kubeconfig.read(write({})).authorization() == ""


@pytest.mark.parametrize(("until", "runs"), [("", 1), ("2000-01-01T00:00:00Z", 2), ("2999-01-01T00:00:00Z", 1)])
async def test_a_command_prints_tokens_when_the_last_one_runs_out(
    write: Any, tmp_path: Path, until: str, runs: int
) -> None:
    expires = f', "expirationTimestamp": "{until}"' if until else ""
    command = tmp_path / "login"
    command.write_text(
        f"#!/bin/sh\necho >> {tmp_path}/runs\n"
        f"""echo '{{"kind": "ExecCredential", "status": {{"token": "'$WHO-$1'"{expires}}}}}'\n"""
    )
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    told = {"apiVersion": "v1", "command": str(command), "args": ["now"], "env": [{"name": "WHO", "value": "me"}]}
    access = kubeconfig.read(write({"exec": told}))
    assert [await access.authorization(), await access.authorization()] == ["Bearer me-now"] * 2
    assert len((tmp_path / "runs").read_text()) == runs


async def test_a_command_that_prints_nothing_is_an_outage(write: Any) -> None:
    access = kubeconfig.read(write({"exec": {"command": "true"}}))
    with pytest.raises(ConnectionError, match="true of the kubeconfig printed no token"):
        await access.authorization()


def test_certificates_are_checked_unless_told_otherwise(write: Any) -> None:
    checked = kubeconfig.read(write({}, server="https://host:1")).tls
    unchecked = kubeconfig.read(write({}, server="https://host:1", **{"insecure-skip-tls-verify": True})).tls
    assert checked
    assert unchecked
    assert (checked.check_hostname, unchecked.check_hostname) == (True, False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be used"),
        ("current-context: x\ncontexts: []", "context x' is missing"),
        ("just words", "cannot be used"),
    ],
)
def test_a_file_that_is_none_says_what_is_missing(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(AgentError, match=sentence):
        kubeconfig.read(path)


def test_a_proxy_is_refused_and_not_ignored(write: Any) -> None:
    with pytest.raises(AgentError, match="proxy-url is not supported"):
        kubeconfig.read(write({}, **{"proxy-url": "http://proxy"}))
