"""The queries of our dashboards, of AWS's own one and of our alerts, as a server is asked them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts/neuron-sim"
RULES = CHART / "rules/neuron-sim.yaml"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))
}

AWS = (
    "instance_info",
    "count(instance_info)\n",
    "sum (system_vcpu_count)",
    "avg(sum by (instance_id) (system_vcpu_usage_ratio))",
    "avg(system_memory_used_bytes / system_memory_total_bytes)",
    "count(neuroncore_utilization_ratio > 0)",
    "avg(neuroncore_utilization_ratio)",
    'sum(rate(execution_status_total{status_type="completed"}[1m]))',
    'sum(rate(execution_status_total{status_type!="completed"}[1m]))',
    "avg by (percentile) (execution_latency_seconds)",
    "avg by (neuroncore) (neuroncore_utilization_ratio)",
    "avg by (usage_type) (neuron_runtime_vcpu_usage_ratio)",
    "avg by (memory_location) (sum by (instance_id, memory_location) (neuron_runtime_memory_used_bytes))",
    "avg by (usage_type) (system_vcpu_usage_ratio)",
    "avg(system_memory_used_bytes)",
)
"""Of src/examples/neuron-monitor/neuron-monitor-grafana.json in AWS's SDK, as they stand there."""


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something: rows are only headlines."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def asked() -> Iterator[tuple[str, str]]:
    """Every query of our dashboards with what Grafana puts in for variables, and where it stands.

    A variable asks for a label's values, which is no PromQL: what finds data here has such values.
    """
    for name, dashboard in DASHBOARDS.items():
        for variable in dashboard["templating"]["list"][1:]:
            found = re.fullmatch(r"label_values\((\w+)(?:\{(.*)\})?, (\w+)\)", variable["definition"])
            assert found, variable["definition"]
            metric, matchers, label = found.groups()
            wanted = ", ".join(filter(None, (matchers, f'{label}!=""')))
            yield f"{name}: variable {label}", filled_in(f"group by ({label}) ({metric}{{{wanted}}})")
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']} {target['refId']}", filled_in(target["expr"])


def looked_at() -> Iterator[tuple[str, str]]:
    """Every series that our rules look at, as it stands there with its labels, and which rule that is."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            without_clauses = _CLAUSE.sub(" ", rule["expr"])
            for found in _SELECTOR.finditer(without_clauses):
                if found[1] not in _OPERATORS:
                    yield rule.get("alert") or rule["record"], found[0]


_CLAUSE = re.compile(r"\b(?:by|on|group_left)\s*\([^)]*\)")
_SELECTOR = re.compile(r"(?<![\w:.])([a-z_][\w:]*)(?:\{[^}]*\})?(?!\s*\(|[\w:{])")
_OPERATORS = {"and", "or", "unless", "offset"}


def filled_in(expr: str, interval: str = "1m") -> str:
    """All values of each variable."""
    return re.sub(r"\$\w+", ".*", expr.replace("$__rate_interval", interval))
