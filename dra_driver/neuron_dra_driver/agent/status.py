"""The status of a NeuronNode, as its agent reports it. Pure.

The agent is the only writer of the status, and writes it only when it changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..names import version

MESSAGE_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether pods can use this node's devices, and if not, why."""

    ready: bool
    reason: str
    message: str


def neuron_node_status(
    neuron_node: Mapping[str, Any],
    *,
    readiness: Readiness,
    devices: int,
    prepared_claims: int,
    other_road_claims: int,
    quarantined: Sequence[str],
    now: str,
) -> dict[str, Any]:
    """The whole status. Conditions that did not change keep the time of their last transition."""
    generation = neuron_node["metadata"].get("generation", 0)
    conditions = [_condition("Ready", readiness, generation)]
    if quarantined:
        conditions.append(
            _condition(
                "CheckpointQuarantined",
                Readiness(
                    True,
                    "Unreadable",
                    f"put aside on the node: {', '.join(quarantined)}; claims in use were found again by their CDI "
                    "files, remove the file when it was looked at",
                ),
                generation,
            )
        )
    earlier = {c["type"]: c for c in (neuron_node.get("status") or {}).get("conditions") or []}
    for condition in conditions:
        before = earlier.get(condition["type"], {})
        same = before.get("status") == condition["status"]
        condition["lastTransitionTime"] = before.get("lastTransitionTime", now) if same else now
    return {
        "observedGeneration": generation,
        "draDriverVersion": version(),
        "devices": devices,
        "preparedClaims": prepared_claims,
        "otherRoadClaims": other_road_claims,
        "conditions": conditions,
    }


def _condition(kind: str, state: Readiness, generation: int) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if state.ready else "False",
        "reason": state.reason,
        "message": state.message[:MESSAGE_LENGTH],
        "observedGeneration": generation,
    }
