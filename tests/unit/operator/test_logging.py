"""One line of JSON per record, with the agent's field names."""

import json
import logging

from neuron_operator.logs import JsonFormatter


def test_a_record_keeps_its_extras_and_loses_kopfs():
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "done %d", "args": (3,), "nodesLabelled": 3, "settings": object()}
    )
    line = json.loads(JsonFormatter().format(record))
    assert {key: line[key] for key in ("level", "logger", "message", "nodesLabelled")} == {
        "level": "info", "logger": "x", "message": "done 3", "nodesLabelled": 3
    }  # fmt: skip
    assert "settings" not in line
    assert line["time"].endswith("Z")


def test_an_exception_stays_on_the_line():
    try:
        raise ValueError("why")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, error, error.__traceback__)})
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert "ValueError: why" in json.loads(text)["exception"]
