"""The files by which a claim's devices get into containers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from neuron_dra_driver.kubeletplugin import CDIFolder


def test_a_claims_file_has_a_device_for_each_name_and_nothing_that_another_claim_could_have(tmp_path: Path) -> None:
    folder = CDIFolder("example.com", tmp_path / "cdi")
    edits = {"one": {"env": ["A=1"]}, "two": {"deviceNodes": [{"path": "/dev/null"}]}}
    ids = folder.write("0a-uid", edits)
    assert ids == {"one": "example.com/claim=0a-uid_one", "two": "example.com/claim=0a-uid_two"}
    (path,) = (tmp_path / "cdi").iterdir()
    assert path.name == "example.com-claim_0a-uid.json"
    assert json.loads(path.read_text()) == {
        "cdiVersion": "0.6.0",
        "kind": "example.com/claim",
        "devices": [
            {"name": "0a-uid_one", "containerEdits": {"env": ["A=1"]}},
            {"name": "0a-uid_two", "containerEdits": {"deviceNodes": [{"path": "/dev/null"}]}},
        ],
    }


def test_a_file_is_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CDIFolder("example.com", tmp_path)
    folder.write("uid", {"one": {"env": ["A=1"]}})

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.write("uid", {"one": {"env": ["A=2"]}})
    (visible,) = tmp_path.glob("*.json")
    assert "A=1" in visible.read_text()
    assert folder.claims() == {"uid"}
    folder.write("uid", {"one": {"env": ["A=2"]}})
    (only,) = tmp_path.iterdir()
    assert "A=2" in only.read_text()


def test_removing_leaves_nothing_and_does_not_mind_an_unknown_claim(tmp_path: Path) -> None:
    folder = CDIFolder("example.com", tmp_path)
    folder.write("uid", {"one": {"env": ["A=1"]}})
    (tmp_path / "example.com-claim_cut.json.tmp").write_text("{")
    (tmp_path / "other.example.com-claim_x.json").write_text("{}")
    assert folder.claims() == {"uid", "cut"}
    for uid in ("uid", "cut", "unknown"):
        folder.remove(uid)
    assert [path.name for path in tmp_path.iterdir()] == ["other.example.com-claim_x.json"]
    assert CDIFolder("example.com", tmp_path / "none").claims() == set()
