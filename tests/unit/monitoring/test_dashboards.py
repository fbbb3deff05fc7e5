"""The dashboards' JSON: imports without edits, and asks for what there is."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_queries import AWS, DASHBOARDS, RULES, asked, panels
from neuron_operator import metrics as operator_metrics
from node_page import busy_node, page_of
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

NAME = re.compile(r"(?<![\w:])(?:neuron|execution_|hardware_|system_|instance_)\w+(?=[{\[) ]|$)")
"""A metric in a query. Labels stand before an equals sign, a comma or a parenthesis, so some of them match, too."""
LABELS = {"instance_type", "neuron_device_index", "neuroncore", "instance_id"}
FAULT = {"name": "drill", "type": "Hang", "chip": 3, "effect": "NoSchedule", "since": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_it_imports_without_edits(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"neuron-sim-{name}"
    assert "id" not in dashboard, "Grafana gives it"
    assert "__inputs" not in dashboard
    datasource, *variables = dashboard["templating"]["list"]
    assert (datasource["type"], datasource["name"], datasource["query"]) == ("datasource", "datasource", "prometheus")
    asking = [*panels(dashboard), *variables, *(t for panel in panels(dashboard) for t in panel["targets"])]
    assert {one["datasource"]["uid"] for one in asking} == {"${datasource}"}
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identities)) == len(identities)
    known = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval"}
    used = re.findall(r"\$(\w+)", " ".join(t["expr"] for panel in panels(dashboard) for t in panel["targets"]))
    assert set(used) <= known


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_explain_themselves_and_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert all(panel["title"] and panel["description"] for panel in panels(DASHBOARDS[name]))


def test_uids_and_titles_are_unique() -> None:
    for key in ("uid", "title"):
        assert len({dashboard[key] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS) == 5


def test_prometheus_can_parse_every_query(promtool: Callable[..., str], tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": expr}
        for number, expr in enumerate([*AWS, *(expr for _, expr in asked())])
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", file)


def exported() -> set[str]:
    """The metrics of agents and operator, and what rules make of them."""
    page = page_of(busy_node("worker-1", server=0, faults=[FAULT])).decode()
    agent = {sample.name for family in text_string_to_metric_families(page) for sample in family.samples}
    wrapped = [one for one in vars(operator_metrics).values() if isinstance(one, MetricWrapperBase)]
    families: Any = [family for one in wrapped for family in one.describe()]
    ours = {f"{f.name}{'_total' if f.type == 'counter' else ''}" for f in families}
    histograms = {f"{f.name}_{part}" for f in families if f.type == "histogram" for part in ("bucket", "count", "sum")}
    return {*agent, *ours, *histograms}


def test_queries_and_rules_ask_for_what_is_exported() -> None:
    """A name that was misspelt parses, and draws nothing."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    asking = [expr for _, expr in asked()] + [rule["expr"] for rule in rules]
    names = {name for expr in asking for name in NAME.findall(re.sub(r'"[^"]*"', '""', expr))}
    assert len(names) > 25, "the expression above still finds them"
    assert names - LABELS <= exported()
