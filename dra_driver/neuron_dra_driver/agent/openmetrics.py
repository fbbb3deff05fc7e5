"""A page of metrics as OpenMetrics, for those who ask for it: Prometheus itself, and OpenTelemetry's receivers.

AWS's script speaks both, and what comes out differs by more than the syntax: only OpenMetrics knows information as a
type, and the CloudWatch agent finds the hardware by the name that `neuron_hardware_info` then has, `neuron_hardware`.
Families differ in their heads alone, so the page is made once, as plain text, and its heads are rewritten.
"""

import re

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END = b"# EOF\n"

_COUNTER = re.compile(rb"^# (HELP|TYPE) (\S+)_total (.*)$", re.MULTILINE)
_INFO = re.compile(rb"^# HELP (\S+)_info (.*)\n# TYPE \S+_info gauge$", re.MULTILINE)
_ACCEPTED = re.compile(rb"^accept:[^\r]*\bapplication/openmetrics-text\b", re.MULTILINE | re.IGNORECASE)


def is_accepted(head: bytes) -> bool:
    """Whether a request's head asks for it. Who can read it prefers it, whatever the weights."""
    return _ACCEPTED.search(head) is not None


def converted(page: bytes) -> bytes:
    """A page in Prometheus' text format 0.0.4, or a part of it, whose counters end with `_total`, as OpenMetrics.

    After the whole page comes END.
    """
    page = _COUNTER.sub(rb"# \1 \2 \3", page)
    return _INFO.sub(rb"# HELP \1 \2\n# TYPE \1 info", page)
