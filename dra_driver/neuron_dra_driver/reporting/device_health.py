"""How the node's devices are, from what is broken on it. Pure.

A fault is of the hardware, and devices are pieces of it: one that has the smallest part of what is broken is unhealthy.
One that only works worse (a corrected error, a throttled clock) is not: nobody has to leave it.
What a prepared claim holds is looked at core by core, because the names of its devices may mean others by now.
"""

from collections.abc import Sequence

from neuron_device_model.efa import efa_devices, faults_of_card
from neuron_device_model.faults import Fault, faults_of
from neuron_device_model.partitions import Part

from ..kubeletplugin import Health, HealthStatus
from ..node import SimulatedNode
from ..records.holdings import HeldDevice

_ADVICE = {
    "NoExecute": "pods that use it are evicted",
    "NoSchedule": "delete the pod, so that its successor gets another device",
    "None": "the scheduler goes on giving it away",
}


def device_health(node: SimulatedNode) -> dict[tuple[str, str], Health]:
    """Every device that the node offers, by pool and name: what `HealthMonitor.set` takes."""
    return {(node.name, name): _health(_breaking(part, node)) for name, part in node.parts.items()}


def card_health(node: SimulatedNode) -> dict[tuple[str, str], Health]:
    """Every EFA card of the node, in the same way."""
    return {
        (node.name, card.name): _health(faults_of_card(card, node.faults)) for card in efa_devices(node.instance_type)
    }


def faults_of_held(held: HeldDevice, node: SimulatedNode) -> tuple[Fault, ...]:
    """The faults that break a device of a prepared claim."""
    if not node.faults:
        return ()
    per_chip = node.instance_type.chip.physical_cores
    cores = tuple(
        chip * per_chip + core for chip, mask in held.cores for core in range(per_chip) if mask >> core & 1
    )  # a mask of -1 has all of them
    part = Part("physical_core", 0, tuple(chip for chip, _ in held.cores), cores)
    return _breaking(part, node)


def faults_of_held_card(held: HeldDevice, node: SimulatedNode) -> tuple[Fault, ...]:
    """The faults that break an EFA card of a prepared claim."""
    cards = (card for card in efa_devices(node.instance_type) if card.name == held.device) if node.faults else ()
    return tuple(fault for card in cards for fault in faults_of_card(card, node.faults))


def explain(faults: Sequence[Fault]) -> str:
    """What is wrong, which object says so, and what to do."""
    return "; ".join(map(_sentence, faults))


def _breaking(part: Part, node: SimulatedNode) -> tuple[Fault, ...]:
    return tuple(fault for fault in faults_of(part, node.faults, node.instance_type) if fault.kind.breaks)


def _health(faults: Sequence[Fault]) -> Health:
    return Health(HealthStatus.UNHEALTHY, explain(faults)) if faults else Health(HealthStatus.HEALTHY)


def _sentence(fault: Fault) -> str:
    code = fault.kind.kernel_error or fault.type
    # What the operator writes where the NeuronFault has no message ends with its name.
    said = fault.message.removesuffix(f"(NeuronFault {fault.name})").strip()
    advice = f"{_ADVICE[fault.effect]}; kubectl delete neuronfault {fault.name} heals it"
    return ": ".join(filter(None, (f"{code} (NeuronFault {fault.name})", said))) + f"; {advice}"
