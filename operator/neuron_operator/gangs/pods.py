"""A pod of a gang: the little of it that decides anything, the patch that lets it go, and how it is made anew.

A pod is let go by one patch that writes its node, a toleration and the reservation's id and removes the gate. From
then on the pod itself says which place of the gang it has taken, so no list of our own can disagree with it.

Its node is written as DaemonSets write it, by name into every term of the required node affinity: then kube-scheduler
looks at that node alone. With a nodeSelector it tries all nodes of the fleet.

A gate cannot be put back. So a pod that was let go in vain is deleted; its controller makes another one, and where
there is no controller, `anew` is what we make.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from neuron_operator.gangs import names
from neuron_operator.node_affinity import required
from neuron_operator.placement import LEVELS, Level

Json = Mapping[str, Any]

DEFAULT_LEVEL: Final[Level] = "ultraserver"
DEFAULT_TIMEOUT: Final = 300
_LONGEST_TIMEOUT = 7 * 24 * 3600
_LARGEST = 10_000
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_FINISHED = ("Succeeded", "Failed")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
TOLERATION: Final = {"key": names.TAINT, "operator": "Exists", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class Terms:
    """What the labels and annotations of a pod ask for."""

    size: int
    level: Level
    timeout: int
    """Seconds from the reservation to the last pod's node."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pod needs of nodes, as it is written in its spec."""

    spec: Json
    """Containers' resources, resourceClaims, nodeSelector, affinity and tolerations; nothing else of it."""


@dataclass(frozen=True, slots=True)
class Member:
    """A pod with the label of a gang."""

    namespace: str
    name: str
    uid: str
    gang: str
    terms: Terms | str
    """A sentence if they cannot be understood."""
    phase: str
    gates: tuple[str, ...]
    reservation: str
    """By which it was let go; empty if it was not."""
    sent: str
    """The node to which it was let go."""
    node: str
    """Where it is bound."""
    leaving: bool
    bare: bool
    """No controller makes it anew."""
    index: int | None
    created: str
    why_not: str
    """The scheduler's words while it has no node."""
    wish: Wish

    @property
    def key(self) -> tuple[str, str]:
        """Its gang."""
        return self.namespace, self.gang

    @property
    def alive(self) -> bool:
        """Whether it is to run, or does."""
        return not self.leaving and self.phase not in _FINISHED

    @property
    def gated(self) -> bool:
        """Whether it waits for us, and for nobody else: the gates of others come first."""
        return self.alive and self.gates == (names.GATE,)

    @property
    def placed(self) -> bool:
        """Whether we let it go, to a node that it has or waits for."""
        return self.alive and bool(self.reservation) and names.GATE not in self.gates

    @property
    def place(self) -> str:
        """The node of a pod that was let go."""
        return self.node or self.sent

    @property
    def order(self) -> tuple[int, str, str]:
        """Pods of a gang in the order of their numbers, else of their names."""
        return (_LARGEST if self.index is None else self.index), self.name, self.uid


def member(pod: Json) -> Member:
    """The projection of a pod with a gang's label."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return Member(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        gang=labels.get(names.LABEL_GANG, ""),
        terms=terms(labels, annotations),
        phase=status.get("phase") or "Pending",
        gates=tuple(gate["name"] for gate in spec.get("schedulingGates") or ()),
        reservation=annotations.get(names.ANNOTATION_RESERVATION, ""),
        sent=annotations.get(names.ANNOTATION_PLACE, ""),
        node=spec.get("nodeName") or "",
        leaving="deletionTimestamp" in metadata,
        bare=not any(owner.get("controller") for owner in metadata.get("ownerReferences") or ()),
        index=_index(labels, annotations),
        created=metadata.get("creationTimestamp") or "",
        why_not=_why_not(status),
        wish=Wish(_of_wish(spec)),
    )


def terms(labels: Mapping[str, str], annotations: Mapping[str, str]) -> Terms | str:
    """What a pod's labels and annotations ask for, or a sentence that says what is wrong with them."""
    name, size = labels.get(names.LABEL_GANG, ""), labels.get(names.LABEL_SIZE)
    if not _NAME.fullmatch(name):
        return (
            f'The label {names.LABEL_GANG}: "{name}" names no gang: use lower-case letters, digits and -, at most 63 of'
            " them, because a NeuronGang gets this name"
        )
    if size is None:
        return f"The label {names.LABEL_SIZE} is missing: say how many pods the gang {name} has"
    if not size.isascii() or not size.isdecimal() or not 1 <= int(size) <= _LARGEST:
        return f'The label {names.LABEL_SIZE}: "{size}" is no size: give a whole number from 1 to {_LARGEST}'
    level = annotations.get(names.TOPOLOGY) or labels.get(names.TOPOLOGY) or DEFAULT_LEVEL
    if level not in LEVELS:
        return f'{names.TOPOLOGY}: "{level}" is not known: use one of {", ".join(LEVELS)}'
    timeout = _seconds(annotations.get(names.ANNOTATION_TIMEOUT))
    if timeout is None:
        text = annotations[names.ANNOTATION_TIMEOUT]
        return f'The annotation {names.ANNOTATION_TIMEOUT}: "{text}" is no time: write it like 90s, 5m or 1h30m'
    return Terms(int(size), level, timeout)


def patch(member: Member, *, node: str, reservation: str) -> dict[str, Any]:
    """The one merge patch that lets a pod go to a node."""
    return {
        "metadata": {
            "uid": member.uid,
            "annotations": {names.ANNOTATION_RESERVATION: reservation, names.ANNOTATION_PLACE: node},
        },
        "spec": {
            "schedulingGates": None,
            "tolerations": [*(member.wish.spec.get("tolerations") or ()), TOLERATION],
            "affinity": {"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": _pinned(member.wish.spec, node)}}},
        },
    }


def unpinned(spec: Json, node: str) -> dict[str, Any]:
    """The spec of a pod that was let go to a node, with the node affinity that it had before."""
    terms = [_without_pin(term, node) for term in (required(spec) or {}).get("nodeSelectorTerms") or ()]
    affinity = dict(spec.get("affinity") or {})
    of_nodes = dict(affinity.pop("nodeAffinity", None) or {})
    of_nodes.pop(_REQUIRED, None)
    if any(terms):
        of_nodes[_REQUIRED] = {"nodeSelectorTerms": terms}
    if of_nodes:
        affinity["nodeAffinity"] = of_nodes
    before = {key: value for key, value in spec.items() if key != "affinity"}
    return before | ({"affinity": affinity} if affinity else {})


def anew(pod: Json) -> dict[str, Any]:
    """What to create in the place of a bare pod that is rolled back: the pod as it was before we let it go."""
    metadata = pod["metadata"]
    annotations = dict(metadata.get("annotations") or {})
    spec = unpinned(pod["spec"], annotations.get(names.ANNOTATION_PLACE, ""))
    for gone in (names.ANNOTATION_RESERVATION, names.ANNOTATION_PLACE):
        annotations.pop(gone, None)
    for gone in ("nodeName", "ephemeralContainers"):
        spec.pop(gone, None)
    spec["tolerations"] = [found for found in spec.get("tolerations") or () if found != TOLERATION]
    spec["schedulingGates"] = [{"name": names.GATE}]
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "ownerReferences") if metadata.get(key)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": kept | ({"annotations": annotations} if annotations else {}),
        "spec": spec,
    }


def _pinned(spec: Json, node: str) -> list[Json]:
    """Terms are alternatives, and an empty one matches nothing: our requirement is the last one of every other."""
    own = (required(spec) or {}).get("nodeSelectorTerms") or [{"matchFields": []}]
    return [{**term, "matchFields": [*(term.get("matchFields") or ()), _pin(node)]} if term else term for term in own]


def _without_pin(term: Json, node: str) -> dict[str, Any]:
    fields = list(term.get("matchFields") or ())
    if fields and fields[-1] == _pin(node):
        fields.pop()
    rest = {key: value for key, value in term.items() if key != "matchFields"}
    return rest | ({"matchFields": fields} if fields else {})


def _pin(node: str) -> dict[str, Any]:
    return {"key": "metadata.name", "operator": "In", "values": [node]}


def _seconds(text: str | None) -> int | None:
    if text is None:
        return DEFAULT_TIMEOUT
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = 3600 * hours + 60 * minutes + seconds
    return total if 1 <= total <= _LONGEST_TIMEOUT else None


def _index(labels: Mapping[str, str], annotations: Mapping[str, str]) -> int | None:
    """A pod's number in its workload, the parts of a JobSet or a LeaderWorkerSet one after another."""
    numbers = (_number(labels.get(label)) for label in names.LABELS_INDEX)
    own = next((number for number in numbers if number is not None), None)
    if own is None:
        return None
    size, jobs = _number(labels.get(names.LABEL_SIZE)), _number(labels.get(names.LABEL_JOBS))
    of_job = size // jobs if size and jobs else None
    of_group = _number(annotations.get(names.ANNOTATION_GROUP_SIZE))
    for label, width in ((names.LABEL_JOB_INDEX, of_job), (names.LABEL_GROUP_INDEX, of_group)):
        part = _number(labels.get(label))
        if part is not None and width and own < width:
            return part * width + own
    return own


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None


def _why_not(status: Json) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or "")
    return ""


def _of_wish(spec: Json) -> dict[str, Any]:
    kept = {key: spec[key] for key in ("nodeSelector", "tolerations", "resourceClaims") if spec.get(key)}
    if of_nodes := (spec.get("affinity") or {}).get("nodeAffinity"):
        kept["affinity"] = {"nodeAffinity": of_nodes}
    for key in ("containers", "initContainers"):
        if found := _containers(spec.get(key) or ()):
            kept[key] = found
    return kept


def _containers(containers: Sequence[Json]) -> list[dict[str, Any]]:
    return [
        {key: container[key] for key in ("resources", "restartPolicy") if container.get(key)}
        for container in containers
    ]
