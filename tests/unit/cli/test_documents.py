"""The documents against what they speak of: links lead somewhere, commands exist, chosen figures are told."""

import re
from pathlib import Path

import pytest
from neuron_cli.main import app
from neuron_device_model.catalog import instance_types
from typer.main import get_command

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("manifests/**/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def code(document: Path) -> str:
    """The blocks of shell and what stands in backticks, a line each."""
    found = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", document.read_text(), re.DOTALL)
    return "\n".join(block or inline for block, inline in found)


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links_lead_to_headings(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", document.read_text())
    assert [link for link in links if link[1] not in anchors(document.parent / link[0] if link[0] else document)] == []


def anchors(document: Path) -> set[str]:
    """The names under which a page's headings can be linked to."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_troubleshooting_names_reasons_that_are_given() -> None:
    """Reasons of conditions and Events are written as one word; each is in our code, or Kubernetes' own."""
    page = (ROOT / "docs/troubleshooting.md").read_text()
    named = set(re.findall(r"`((?:[A-Z][a-z]+){2,})`", page))
    code = "".join(path.read_text() for part in ("operator", "dra_driver") for path in (ROOT / part).rglob("*.py"))
    given = set(re.findall(r"(?:[A-Z][a-z]+){2,}", code)) | {
        "BindingConditionsPending",
        "CreateContainerError",
        "FailedPrepareDynamicResources",
        "FailedResourceClaimCreation",
        "SchedulingGated",
    }
    assert named - given == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"^make ([a-z.-]+)", code(document), re.MULTILINE))
    assert used <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_commands_exist(document: Path) -> None:
    commands = set(get_command(app).commands)
    used = set(re.findall(r"^neuron-sim ([a-z-]+)", code(document), re.MULTILINE))
    assert used <= commands


def test_fidelity_tells_every_chosen_figure() -> None:
    page = (ROOT / "docs/fidelity.md").read_text()
    told = dict(re.findall(r"^\| ((?:inf|trn)\S+) \| (.*) \|$", page, re.MULTILINE))
    assert told == {kind.name: ", ".join(kind.chosen) for kind in instance_types() if kind.chosen}
