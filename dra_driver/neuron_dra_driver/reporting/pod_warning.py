"""A Warning on a pod: an Event (events.k8s.io/v1) that is there once, however often it is told.

Its name is made from the pod and what it is about, so another process, or this one after a restart, makes the same and
is told that it is there.

The ClusterRole needs `create` on `events` of `events.k8s.io`.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..kubeletplugin import ApiError
from ..names import API_GROUP, SIMULATED
from .claim_status import Request

EVENTS = "/apis/events.k8s.io/v1/namespaces/{namespace}/events"
NOTE_BYTES = 1024

Object = dict[str, Any]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodRef:
    """Which pod."""

    namespace: str
    name: str
    uid: str


def warning(
    pod: PodRef, *, reason: str, action: str, note: str, about: Sequence[str], reporter: str, now: datetime
) -> Object:
    """The Event; `about` tells it from others of this pod, `reporter` is the node's name."""
    digest = hashlib.sha256("/".join((pod.uid, *about)).encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{pod.name[:200].rstrip('-.')}.{digest}",
            "namespace": pod.namespace,
            "labels": {SIMULATED: "true"},
        },
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
        "type": "Warning",
        "reason": reason,
        "action": action,
        "note": _cut(note),
        "reportingController": f"{API_GROUP}/agent",
        "reportingInstance": reporter[:128],
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }


async def tell(request: Request, event: Object) -> bool:
    """Send it; False: it is worth another try."""
    pod = event["regarding"]
    try:
        await request("POST", EVENTS.format(namespace=pod["namespace"]), body=event)
    except Exception as error:
        status = error.status if isinstance(error, ApiError) else 500
        if status != 409:  # 409: it is there already
            log.warning("pod %s/%s is not told: %s: %s", pod["namespace"], pod["name"], event["note"], error)
        return not (status == 429 or status >= 500)
    return True


def _cut(note: str) -> str:
    text = note.encode()
    return note if len(text) <= NOTE_BYTES else text[: NOTE_BYTES - 3].decode(errors="ignore") + "…"
