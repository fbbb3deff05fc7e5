"""Grafana's dashboard model, as much of it as our dashboards use, with types and a layout that follows from the order.

The JSON of a dashboard is nine tenths repetition, and a reviewer looks for the queries. So dashboards are written as
lists of panels (the files beside this one), and the JSON in the chart is generated; `make lint` tells when it is old.
Everything asks the data source of the variable `datasource`, so that an import needs no edits.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Json: TypeAlias = dict[str, Any]
Look: TypeAlias = Literal["timeseries", "stat", "gauge", "table", "state-timeline", "bargauge"]

SCHEMA_VERSION = 42
"""Of Grafana 12.2 and newer; older ones read it, too."""
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "$__rate_interval"

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """What is seen of some queries. `steps`: from which value on which colour; the first has none."""

    title: str
    queries: Sequence[Query]
    description: str
    look: Look = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    stacked: bool = False
    most: float | None = None
    steps: Sequence[tuple[float | None, str]] = ((None, GREEN),)
    columns: dict[str, str] = field(default_factory=dict)
    """Of a table: the labels that it shows, and how they are called."""
    words: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What stands for a value, and in which colour."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a headline."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice of label values on top of a dashboard; all of them at first."""

    name: str
    label: str
    metric: str

    def model(self) -> Json:
        """As Grafana has it."""
        query = f"label_values({self.metric}, {self.name})"
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": f"variable-{self.name}"},
            "refresh": 2,
            "sort": 7,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page of rows."""

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]

    def model(self) -> Json:
        """As Grafana has it: the JSON that is imported."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["neuron-sim", "neuron"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "links": [
                {
                    "type": "dashboards",
                    "title": "neuron-sim",
                    "tags": ["neuron-sim"],
                    "asDropdown": True,
                    "includeVars": True,
                    "keepTime": True,
                }
            ],
            "templating": {
                "list": [
                    {
                        "type": "datasource",
                        "name": "datasource",
                        "label": "Data source",
                        "query": "prometheus",
                        "current": {},
                    },
                    *(variable.model() for variable in self.variables),
                ]
            },
            "panels": list(_laid_out(self.rows)),
        }


def _laid_out(rows: Iterable[Row]) -> Iterator[Json]:
    """From left to right and from top to bottom."""
    number = y = 0
    for row in rows:
        number += 1
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            yield {
                "id": number,
                "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
                **_model(panel),
            }
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _model(panel: Panel) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": color, "value": value} for value, color in panel.steps],
        },
        "color": {"mode": "palette-classic" if panel.look == "timeseries" else "thresholds"},
        "mappings": [
            {"type": "value", "options": {value: {"text": text, "color": color}}}
            for value, (text, color) in panel.words.items()
        ],
    }
    if panel.look in ("timeseries", "gauge", "bargauge"):
        defaults["min"] = 0
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.look == "timeseries":
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 10,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return {
        "type": panel.look,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
        "targets": [_target(panel, query, letter) for query, letter in zip(panel.queries, "ABCDEFGH", strict=False)],
        **({"transformations": [_organized(panel)]} if panel.look == "table" else {}),
    }


def _target(panel: Panel, query: Query, letter: str) -> Json:
    now = panel.look in ("stat", "gauge", "table", "bargauge")
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": now,
        "range": not now,
        "format": "table" if panel.look == "table" else "time_series",
    }


def _options(panel: Panel) -> Json:
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.look:
        case "timeseries":
            return {
                "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case "stat":
            return {"reduceOptions": reduced, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
        case "gauge":
            return {"reduceOptions": reduced, "showThresholdMarkers": True}
        case "bargauge":
            return {"reduceOptions": reduced, "orientation": "horizontal", "displayMode": "basic"}
        case "state-timeline":
            return {"mergeValues": True, "showValue": "never", "rowHeight": 0.8, "legend": {"showLegend": True}}
        case "table":
            return {"showHeader": True}


def _organized(panel: Panel) -> Json:
    """Only these columns, in this order."""
    shown = list(panel.columns)
    return {
        "id": "organize",
        "options": {
            "includeByName": dict.fromkeys(shown, True),
            "indexByName": {name: place for place, name in enumerate(shown)},
            "renameByName": {name: title for name, title in panel.columns.items() if name != title},
        },
    }
