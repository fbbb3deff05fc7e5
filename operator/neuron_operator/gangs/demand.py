"""How many chips a pod of a gang needs: as plain resources, by claims, or whole nodes.

Read from the pod's spec and from the ResourceClaims and templates that it names. Cores are counted as whole chips,
since placement thinks in chips; a DeviceClass of somebody else's making counts as none.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neuron_device_model.partitions import NODE_DEVICE

from neuron_operator import names
from neuron_operator.extender.demand import demand

Json = Mapping[str, Any]
Lookup = Callable[[str, bool], Json | None]
"""The spec of a ResourceClaim's devices by the name of a claim, or (True) of a template; None: there is none, or it is
allocated already."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What one pod takes of its node."""

    chips: int = 0
    whole_node: bool = False
    efa: bool = False
    """It claims EFA cards."""


def references(spec: Json) -> tuple[tuple[str, bool], ...]:
    """The claims that a pod names, and whether each is a template."""
    return tuple(
        (
            str(each.get("resourceClaimTemplateName") or each.get("resourceClaimName")),
            "resourceClaimTemplateName" in each,
        )
        for each in spec.get("resourceClaims") or ()
        if each.get("resourceClaimTemplateName") or each.get("resourceClaimName")
    )


def needs(spec: Json, *, lookup: Lookup, driver_name: str, cores_per_chip: int) -> Needs:
    """What a pod with this spec takes."""
    plain = demand({"spec": spec})
    chips, cores, whole, efa = plain.chips, plain.cores, False, False
    for name, template in references(spec):
        for request in (lookup(name, template) or {}).get("requests") or ():
            # of alternatives the first is what is wished
            found = next(iter(request.get("firstAvailable") or ()), None) or request.get("exactly") or {}
            if found.get("adminAccess"):
                continue
            count = int(found.get("count") or 1)
            match found.get("deviceClassName"):
                case names.EFA_CLASS:
                    efa = True
                case names.CORE_CLASS | names.PHYSICAL_CORE_CLASS:
                    cores += count
                case class_name if class_name in (driver_name, names.DEVICE_CLASS):
                    whole = whole or found.get("allocationMode") == "All" or _wants_a_node(found.get("selectors") or ())
                    chips += count
    return Needs(0 if whole else chips + -(-cores // cores_per_chip), whole_node=whole, efa=efa)


def _wants_a_node(selectors: Iterable[Json]) -> bool:
    kind = NODE_DEVICE.replace("-", "_")
    return any(kind in str((each.get("cel") or {}).get("expression", "")) for each in selectors)
