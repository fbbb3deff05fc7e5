"""Faults of the hardware: what can break, which devices it hits, and the taint that tells the scheduler.

A fault names physical hardware (a node, a chip, a physical core, a link of two chips, an EFA card), while devices are
cut as the pool likes; so one broken core taints every device that it is part of, and no other.

What a kind of fault does is one row of a table here, so that all who show it say the same: the operator in conditions
of the node, the agent in health and metrics, the runtime in its error codes. Sources: AWS docs,
neuron-runtime/nrt-troubleshoot.rst (codes, messages), the driver's sysfs counters, src/k8/neuron-problem-detector.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from neuron_device_model.catalog import InstanceType
from neuron_device_model.partitions import Part

TAINT_KEY = "neuron-sim.dev/unhealthy"

Place = Literal["node", "chip", "core", "link", "efa"]

ECC_EVENTS = (
    "mem_ecc_corrected",
    "mem_ecc_uncorrected",
    "mem_ecc_repairable_uncorrected",
    "sram_ecc_corrected",
    "sram_ecc_uncorrected",
)
"""What the driver counts of each chip."""

_FATAL = "(FATAL-RT-UNDEFINED-STATE)"
_HBM = f"{_FATAL} Uncorrectable HBM memory error is detected. Execution results may be invalid."
_SRAM = (
    f"{_FATAL} [ND {{nd}}][NC {{nc}}] Uncorrectable memory error is detected, metadata: 0x16. Please terminate or"
    " stop/start this instance to prevent future impact from the hardware error."
)
_ERRORS = "TDRV:exec_request_process_errors"


@dataclass(frozen=True, slots=True)
class Failure:
    """How the Neuron runtime fails: its status, and the place and the words of its log.

    `{nd}` and `{nc}` in the words are the device and the core, numbered as in the container.
    """

    status: int
    place: str
    words: str
    at_open: bool = False
    """When cores are opened, and not only when something is executed."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What a type of fault is."""

    places: frozenset[Place]
    """What it may be of."""
    breaks: bool = True
    """Devices do not work; else they only work worse, and stay healthy."""
    kernel_error: str | None = None
    """The X of the driver's kernel message `NEURON_HW_ERR=X` about it."""
    ecc: tuple[str, ...] = ()
    """The counters of each chip that go up."""
    error: Failure | None = None
    counts_as: str = "completed_with_err"
    """As what a failed execution is counted."""

    @property
    def effect(self) -> str:
        """Of the taint, where the fault names none."""
        return "NoSchedule" if self.breaks else "None"


_HARDWARE: frozenset[Place] = frozenset({"node", "chip", "core"})

FAULT_KINDS: Mapping[str, FaultKind] = MappingProxyType(
    {
        "SRAMUncorrectable": FaultKind(
            _HARDWARE,
            kernel_error="SRAM_UNCORRECTABLE_ERROR",
            ecc=("sram_ecc_uncorrected",),
            error=Failure(1202, _ERRORS, _SRAM),
        ),
        "HBMUncorrectable": FaultKind(
            _HARDWARE,
            kernel_error="HBM_UNCORRECTABLE_ERROR",
            ecc=("mem_ecc_uncorrected",),
            error=Failure(
                1201,
                _ERRORS,
                f"{_HBM} Please terminate this instance to prevent future impact from the hardware error.",
            ),
        ),
        "HBMRepairable": FaultKind(
            _HARDWARE,
            ecc=("mem_ecc_uncorrected", "mem_ecc_repairable_uncorrected"),
            error=Failure(
                1205,
                _ERRORS,
                f"{_HBM} Please reload the neuron driver or reboot your EC2 instance to prevent future impact from the"
                " hardware error.",
            ),
        ),
        "NCUncorrectable": FaultKind(
            _HARDWARE,
            kernel_error="NC_UNCORRECTABLE_ERROR",
            ecc=("sram_ecc_uncorrected",),
            error=Failure(1202, _ERRORS, _SRAM),
        ),
        "DMAError": FaultKind(
            _HARDWARE,
            kernel_error="DMA_ERROR",
            error=Failure(1203, _ERRORS, "[MLA {nd}][NC {nc}] DMA TX engine 0 is in an abort state"),
        ),
        "Hang": FaultKind(
            _HARDWARE,
            kernel_error="HANG_ON_COLLECTIVES",
            error=Failure(
                5,
                "TDRV:exec_consume_infer_status_notifications",
                "missing collectives status on Neuron Device {nd} NC {nc}, model 0 - suspected hang in collectives"
                " operation 0 out of 100",
            ),
            counts_as="timed_out",
        ),
        "LinkDown": FaultKind(
            frozenset({"link"}),
            error=Failure(
                1200,
                _ERRORS,
                "missing collectives status on Neuron Device {nd} NC {nc}, model 0 - suspected hang in collectives"
                " operation 0 out of 100",
            ),
        ),
        "DeviceLost": FaultKind(
            frozenset({"node", "chip"}),
            error=Failure(1, "TDRV:tdrv_init_mla_phase1", "Could not open the nd{nd}", at_open=True),
        ),
        "DriverFailed": FaultKind(
            frozenset({"node"}),
            error=Failure(
                1,
                "NRT:nrt_init",
                "Unable to determine Neuron Driver version. Please check aws-neuron-dkms package is installed.",
                at_open=True,
            ),
        ),
        "EFADown": FaultKind(frozenset({"node", "efa"})),
        "HBMCorrectable": FaultKind(_HARDWARE, breaks=False, ecc=("mem_ecc_corrected",)),
        "SRAMCorrectable": FaultKind(_HARDWARE, breaks=False, ecc=("sram_ecc_corrected",)),
        "ThermalThrottle": FaultKind(_HARDWARE, breaks=False),
        "MemoryLeak": FaultKind(_HARDWARE, breaks=False),
    }
)
"""What can break, by `spec.type` of a NeuronFault."""

FAULT_TYPES: tuple[str, ...] = tuple(FAULT_KINDS)
RATED = ("HBMCorrectable", "SRAMCorrectable")
"""Types with a rate: `eventsPerMinute`."""
GRADED = ("ThermalThrottle", "MemoryLeak")
"""Types with a degree: `percent`."""

EVENTS_PER_MINUTE = 6
"""Of a correctable error that names no rate."""
PERCENT: Mapping[str, int] = MappingProxyType({"ThermalThrottle": 50, "MemoryLeak": 5})
"""Where a fault names no degree: how much slower cores are; of a core's memory in each minute."""

EFFECTS = ("NoExecute", "NoSchedule", "None")
"""Strictest first."""

# Of a device in resource.k8s.io/v1. More types than that may hit one device: what is left out then is of the mildest
# effects, and no device is the freer for it.
MAX_TAINTS = 16


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is broken on a node. Without a chip it is the whole node, without a core the whole chip."""

    name: str
    type: str
    chip: int | None
    core: int | None
    """A physical core, numbered in its chip."""
    effect: str
    message: str
    since: str
    """RFC 3339."""
    peer: int | None = None
    """The chip at the other end of a link."""
    efa: int | None = None
    """An EFA card, in the order of PCI addresses; None: all of the node, or none."""
    events_per_minute: int | None = None
    percent: int | None = None

    @property
    def kind(self) -> FaultKind:
        """The row of its type; that of a type which this release does not know is that of a broken device."""
        return FAULT_KINDS.get(self.type, _UNKNOWN)

    @property
    def degree(self) -> int:
        """Its percent, or what is usual for its type."""
        return self.percent or PERCENT.get(self.type, 0)


_UNKNOWN = FaultKind(_HARDWARE)


def read(entry: Mapping[str, Any]) -> Fault:
    """A fault as an entry of NeuronNode.spec.faults has it."""
    return Fault(
        name=entry["name"],
        type=entry["type"],
        chip=entry.get("chip"),
        core=entry.get("core"),
        effect=entry["effect"],
        message=entry.get("message") or "",
        since=entry.get("since") or "",
        peer=entry.get("peer"),
        efa=entry.get("efa"),
        events_per_minute=entry.get("eventsPerMinute"),
        percent=entry.get("percent"),
    )


def hits(fault: Fault, part: Part, instance_type: InstanceType) -> bool:
    """Whether a device contains what is broken."""
    if fault.type == "EFADown":
        return False
    if fault.chip is None:
        return True
    if fault.peer is not None:
        return fault.chip in part.chips or fault.peer in part.chips
    if fault.core is None:
        return fault.chip in part.chips
    per_chip = instance_type.chip.physical_cores
    return fault.core < per_chip and fault.chip * per_chip + fault.core in part.physical_cores


def chips_hit(fault: Fault, instance_type: InstanceType) -> range | tuple[int, ...]:
    """The chips with something of what is broken."""
    if fault.type == "EFADown":
        return ()
    if fault.chip is None:
        return range(instance_type.chips)
    return (fault.chip,) if fault.peer is None else (fault.chip, fault.peer)


def whole_node(fault: Fault) -> bool:
    """Whether it breaks all of a node's chips."""
    return fault.chip is None and fault.type != "EFADown" and fault.kind.breaks


def lost_chips(faults: Iterable[Fault], instance_type: InstanceType) -> frozenset[int]:
    """The chips that the driver does not show any more."""
    gone = [fault for fault in faults if fault.kind.error and fault.kind.error.at_open]
    return frozenset(chip for fault in gone for chip in chips_hit(fault, instance_type))


def faults_of(part: Part, faults: Iterable[Fault], instance_type: InstanceType) -> tuple[Fault, ...]:
    """The faults that hit a device, in the order given."""
    return tuple(fault for fault in faults if hits(fault, part, instance_type))


def taint(fault: Fault) -> dict[str, Any]:
    """The DRA device taint (resource.k8s.io/v1) of a fault."""
    return {"key": TAINT_KEY, "value": fault.type, "effect": fault.effect, "timeAdded": fault.since}


def taints(faults: Iterable[Fault]) -> list[dict[str, Any]]:
    """The taints of a device that these faults hit: the oldest fault of each type and effect speaks for all."""
    oldest: dict[tuple[str, str], Fault] = {}
    for fault in sorted(faults, key=lambda fault: (EFFECTS.index(fault.effect), fault.type, fault.since)):
        oldest.setdefault((fault.type, fault.effect), fault)
    return [taint(fault) for fault in oldest.values()][:MAX_TAINTS]
