"""What decisions lead to: one write each, carried out by `writing`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from neuron_operator.gangs.barrier import Barrier
from neuron_operator.gangs.pods import Member
from neuron_operator.gangs.records import Key, Record

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Make:
    """A NeuronGang for a gang that has none."""

    key: Key
    spec: Json


@dataclass(frozen=True, slots=True)
class Respec:
    """Another spec for a gang that has no reservation."""

    record: Record
    spec: Json


@dataclass(frozen=True, slots=True)
class SetStatus:
    """A new status, for the version of the NeuronGang that was judged."""

    record: Record
    status: Json


@dataclass(frozen=True, slots=True)
class SetTaint:
    """The reservation on a node; None takes it away."""

    node: str
    value: str | None


@dataclass(frozen=True, slots=True)
class LetGo:
    """Remove a pod's gate, with its node written on it."""

    member: Member
    patch: Json


@dataclass(frozen=True, slots=True)
class Save:
    """Bare pods into the status of their gang, before they are deleted."""

    record: Record
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Delete:
    """A pod that was let go in vain."""

    member: Member


@dataclass(frozen=True, slots=True)
class Remake:
    """A bare pod, again."""

    pod: Json


@dataclass(frozen=True, slots=True)
class Forget:
    """The NeuronGang of a gang that has no pods any more."""

    record: Record


@dataclass(frozen=True, slots=True)
class Answer:
    """What kube-scheduler waits for, in the status of a claim that has the barrier."""

    barrier: Barrier
    complete: bool
    """Bind its pods; else not."""
    message: str


@dataclass(frozen=True, slots=True)
class Tell:
    """An Event."""

    key: str
    """What tells it from all others."""
    event: dict[str, Any]


Write: TypeAlias = Make | Respec | SetStatus | SetTaint | LetGo | Save | Delete | Remake | Forget | Answer | Tell
