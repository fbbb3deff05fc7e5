"""Signs of real Neuron hardware or software in the cluster.

A simulator that serves AWS's own names must not share a cluster with the real thing: it could take pods that
were meant for hardware, and a kubelet knows one driver of a name only. So everything that speaks of real
Neuron and was not written by ourselves is a finding, with a sentence on what to do about it.

Findings on a node keep that node out of every pool. While the driver name is AWS's own, any finding stops
all pools from growing (``expansion``); whoever has to run both chooses another driver name, and then the
real nodes are only left alone.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neuron_operator import names
from neuron_operator.nodes import NodeFacts

# neuron-helm-chart 1.10: the two node agents; mirrors keep the last part of the name
_IMAGES = ("neuron-device-plugin", "neuron-dra-driver")
_NEURON_TYPE = re.compile(r"^(ml\.)?(inf|trn)\d+[a-z]*\.")
_SHOWN = 3

_MOVE = "install neuron-sim in a cluster without Neuron nodes, or run both with another driver name"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sign of real Neuron, and how to get rid of the conflict."""

    what: str
    remedy: str
    node: str | None = None


def on_node(node: NodeFacts, *, our_plugin: bool = False) -> Finding | None:
    """The first sign on a node, if any; `our_plugin` where our own agent serves the device plugins."""
    for sign, remedy in _signs(node, our_plugin=our_plugin or names.LABEL_DEVICE_PLUGIN in node.own_labels):
        return Finding(f"node {node.name} {sign}", remedy, node.name)
    return None


def _signs(node: NodeFacts, *, our_plugin: bool) -> Iterable[tuple[str, str]]:
    if node.neuron_capacity and not our_plugin:
        yield (
            f"has {', '.join(node.neuron_capacity)} in its capacity, which a Neuron device plugin put there",
            f"remove the device plugin (restart the kubelet to clear the capacity), or {_MOVE}",
        )
    instance_type = node.natural_labels.get(names.LABEL_INSTANCE_TYPE, "")
    if node.provider_id.startswith("aws:///") and _NEURON_TYPE.match(instance_type):
        yield f"is an EC2 instance of type {instance_type}", _MOVE
    if node.labels.get(names.LABEL_NFD) == "true":
        yield f"has the label {names.LABEL_NFD}: Neuron chips were found on its PCI bus", _MOVE
    if names.LABEL_PRESENT in node.labels and names.LABEL_PRESENT not in node.own_labels:
        yield (
            f"has the label {names.LABEL_PRESENT}, which neuron-sim did not write",
            f"remove the label if it is left over, else {_MOVE}",
        )


def in_slices(slices: Iterable[Mapping[str, Any]], *, driver_name: str) -> list[Finding]:
    """ResourceSlices under our driver name that lack our marker."""
    foreign = sorted(
        item["metadata"]["name"]
        for item in slices
        if item["spec"]["driver"] == driver_name
        and (item["metadata"].get("labels") or {}).get(names.LABEL_SIMULATED) != "true"
    )
    if not foreign:
        return []
    shown = ", ".join(foreign[:_SHOWN]) + (f" and {len(foreign) - _SHOWN} more" if foreign[_SHOWN:] else "")
    return [
        Finding(
            f"another DRA driver publishes ResourceSlices as {driver_name}: {shown}",
            "uninstall that driver (its slices go with it), or give neuron-sim another driver name",
        )
    ]


def in_daemon_sets(daemon_sets: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """DaemonSets that run AWS's device plugin or DRA driver."""
    found = []
    for daemon_set in daemon_sets:
        metadata = daemon_set["metadata"]
        pod = daemon_set["spec"]["template"]["spec"]
        for container in pod.get("containers") or ():
            image = container.get("image", "")
            if _repository(image).endswith(_IMAGES):
                where = f"{metadata.get('namespace', 'default')}/{metadata['name']}"
                found.append(
                    Finding(
                        f"DaemonSet {where} runs {image}",
                        f"uninstall it, or {_MOVE}",
                    )
                )
                break
    return sorted(found, key=lambda finding: finding.what)


def _repository(image: str) -> str:
    """An image's name without digest and tag; a colon before the last slash is a registry's port."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def summary(findings: Iterable[Finding]) -> str:
    """The findings as one message."""
    listed = list(findings)
    text = "; ".join(f"{finding.what}: {finding.remedy}" for finding in listed[:_SHOWN])
    return text + (f"; and {len(listed) - _SHOWN} more" if listed[_SHOWN:] else "")
