"""The rules: promtool finds nothing wrong, each alert fires when it should and only then, and has a runbook."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
RULES = REPOSITORY / "charts/neuron-sim/rules/neuron-sim.yaml"
# strings only: `0x5`, six zeros, would be read as a number
CASES: dict[str, Any] = yaml.load(Path(__file__).with_name("alerts.yaml").read_text(), Loader=yaml.BaseLoader)
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
DOCS = "https://github.com/neuron-sim/neuron-sim/blob/main/"


def test_promtool_finds_nothing_wrong(promtool: Callable[..., str]) -> None:
    """Neither with the expressions nor with the templates of the annotations."""
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_each_alert_fires_when_it_should_and_only_then(promtool: Callable[..., str], tmp_path: Path) -> None:
    # promtool compares annotations, too, which would be every sentence twice
    bare = [
        {**group, "rules": [{key: rule[key] for key in rule if key != "annotations"} for rule in group["rules"]]}
        for group in GROUPS
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": bare}))
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in case["series"].items()],
            "alert_rule_test": [
                *({"eval_time": time, "alertname": name, "exp_alerts": []} for time in case["silent"]),
                *(
                    {
                        "eval_time": time,
                        "alertname": name,
                        "exp_alerts": [{"exp_labels": labels | ALERTS[name]["labels"]} for labels in fired],
                    }
                    for time, fired in case["fires"].items()
                ),
            ],
        }
        for name, case in CASES.items()
    ]
    case_file = tmp_path / "tests.yaml"
    case_file.write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}, width=1000)
    )
    promtool("test", "rules", case_file)


def test_no_alert_is_without_a_test() -> None:
    assert set(CASES) == set(ALERTS)
    assert all(case["fires"] and case["silent"] for case in CASES.values())


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_each_alert_says_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    path, _, anchor = alert["annotations"]["runbook_url"].removeprefix(DOCS).partition("#")
    headlines = re.findall(r"^#+ (.+)$", (REPOSITORY / path).read_text(), re.MULTILINE)
    assert anchor in [headline.lower().replace(" ", "-") for headline in headlines]
