"""Opaque configuration in claims and classes, decoded strictly. Pure: what the API server has in, settings out.

Whoever may create a claim writes the parameters, and Kubernetes checks nothing but their size (10 KiB) and that they
are JSON. So everything about them is suspected here: kind, version, every field, every type. A configuration is valid
as a whole or refused as a whole, also when another one overrides it: nobody finds out later that a line had no effect.

Of each kind one object holds for a request, the one that is named last, and a claim's comes after its class's. Objects
are not merged: what a claim says about LNC replaces all that the class says about LNC.

Written by hand instead of with a schema library, which would cost more memory than the rest of the agent.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from ..errors import ClaimError
from ..names import API_GROUP, API_VERSION

AWS = "neuron.aws.com/v1"
OURS = f"{API_GROUP}/{API_VERSION}"

LOGICAL_NC_CONFIG = "NEURON_LOGICAL_NC_CONFIG"
VISIBLE_CORES = "NEURON_RT_VISIBLE_CORES"
ULTRASERVER_MODE = "NEURON_RT_ULTRASERVER_MODE"
ULTRASERVER_SERVER_ID = "NEURON_RT_ULTRASERVER_SERVER_ID"
ULTRASERVER_NODE_ID = "NEURON_RT_ULTRASERVER_NODE_ID"
GLOBAL_TOPOLOGY_ID = "NEURON_GLOBAL_TOPOID"
SIMULATED_VARIABLE = "NEURON_SIM_SIMULATED"

MAX_VARIABLES = 16
MAX_VALUE = 256
_MAX_NAME = 128
_SHOWN = 60
_PREFIX = "NEURON_"
_OWN_PREFIX = "NEURON_SIM_"
_SET_BY_US = {
    LOGICAL_NC_CONFIG: "write a NeuronConfig",
    VISIBLE_CORES: "ask for the cores that are wanted",
    **dict.fromkeys((ULTRASERVER_MODE, ULTRASERVER_SERVER_ID, ULTRASERVER_NODE_ID), "write an UltraServerConfig"),
}
"""Variables that nobody else may set, and what to do instead."""
_NAME_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


@dataclass(frozen=True, slots=True)
class NeuronConfig:
    """AWS's configuration of the logical NeuronCores."""

    logical_neuron_core: int
    where: str = field(default="", compare=False)
    """The object that says so, for sentences about it."""


@dataclass(frozen=True, slots=True)
class UltraServerConfig:
    """AWS's configuration of how many servers of an UltraServer work together."""

    ultraserver_mode: int
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """Ours: variables for the simulated runtime in the request's containers."""

    environment: Mapping[str, str]
    where: str = field(default="", compare=False)


Config: TypeAlias = NeuronConfig | UltraServerConfig | SimulationConfig


@dataclass(frozen=True, slots=True)
class RequestConfig:
    """What holds for one request; None where nobody says anything."""

    neuron: NeuronConfig | None = None
    ultraserver: UltraServerConfig | None = None
    simulation: SimulationConfig | None = None


UNCONFIGURED = RequestConfig()


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration and the requests that it is for."""

    config: Config
    source: Literal["FromClass", "FromClaim"]
    requests: frozenset[str]
    """As the claim names them, `main` or `main/sub`; empty for all."""

    def is_for(self, request: str) -> bool:
        """Whether it holds for a request, given as in a result (`main/sub` where one of several was chosen)."""
        return not self.requests or not self.requests.isdisjoint((request, request.partition("/")[0]))


def configurations(claim: Mapping[str, Any], *, driver: str) -> tuple[Configured, ...]:
    """All configuration in an allocated claim that is for this driver, valid every one of them."""
    entries = claim["status"]["allocation"]["devices"].get("config") or []
    if not entries:
        return ()
    places = _places(claim, sum(entry.get("source") != "FromClass" for entry in entries))
    found = []
    for entry in entries:
        from_class = entry.get("source") == "FromClass"
        requests = frozenset(entry.get("requests") or ())
        where = _class_of(claim, requests) if from_class else next(places)
        opaque = entry.get("opaque") or {}
        if opaque.get("driver") == driver:
            config = decode(opaque.get("parameters"), where=where)
            found.append(Configured(config, "FromClass" if from_class else "FromClaim", requests))
    return tuple(found)


def for_request(request: str, configured: Iterable[Configured]) -> RequestConfig:
    """What holds for a request: of each kind the last one, a claim's before a class's."""
    ours = [entry for entry in configured if entry.is_for(request)]
    ordered = [entry.config for source in ("FromClass", "FromClaim") for entry in ours if entry.source == source]
    return RequestConfig(
        neuron=_last(ordered, NeuronConfig),
        ultraserver=_last(ordered, UltraServerConfig),
        simulation=_last(ordered, SimulationConfig),
    )


def decode(parameters: object, *, where: str) -> Config:
    """One opaque object. `where` begins the sentence about what is wrong with it."""
    if not isinstance(parameters, Mapping):
        raise ClaimError(
            f"{where}.opaque.parameters is {_what(parameters)}: write an object with apiVersion and kind, {_known()}"
        )
    name = parameters.get("kind")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        said = f"has kind {_what(name)}, which is not known" if "kind" in parameters else "has no kind"
        raise ClaimError(f"{where} {said}: write {_known()}")
    where = f"{where} ({name})"
    if parameters.get("apiVersion") != kind.api_version:
        version = parameters.get("apiVersion")
        said = f"has apiVersion {_what(version)}" if "apiVersion" in parameters else "has no apiVersion"
        raise ClaimError(f"{where} {said}: write apiVersion: {kind.api_version}")
    if unknown := [key for key in parameters if key not in ("apiVersion", "kind", kind.field)]:
        fields = ", ".join(f"unknown field {_quoted(key)}" for key in unknown[:3])
        raise ClaimError(
            f"{where}: strict decoding error: {fields}: {name} has the field {kind.field} besides apiVersion and "
            f"kind; write {kind.example}"
        )
    if kind.field not in parameters:
        raise ClaimError(f"{where} has no {kind.field}: write {kind.example}")
    return kind.build(parameters[kind.field], f"{where}: {kind.field}", kind)


@dataclass(frozen=True, slots=True)
class _Kind:
    api_version: str
    field: str
    example: str
    build: Callable[[object, str, "_Kind"], Config]


def _neuron(value: object, where: str, kind: _Kind) -> Config:
    return NeuronConfig(_one_of(value, (1, 2), where, kind), where)


def _ultraserver(value: object, where: str, kind: _Kind) -> Config:
    return UltraServerConfig(_one_of(value, (1, 2, 4), where, kind), where)


def _simulation(value: object, where: str, kind: _Kind) -> Config:
    if not isinstance(value, Mapping):
        raise ClaimError(f"{where} is {_what(value)} and must be an object of strings: write {kind.example}")
    if len(value) > MAX_VARIABLES:
        raise ClaimError(f"{where} has {len(value)} variables: {MAX_VARIABLES} are allowed, remove the others")
    for name, content in value.items():
        _check_variable(name, content, where)
    return SimulationConfig(dict(value), where)


_KINDS: Mapping[str, _Kind] = {
    "NeuronConfig": _Kind(AWS, "logicalNeuronCore", "logicalNeuronCore: 1 or logicalNeuronCore: 2", _neuron),
    "UltraServerConfig": _Kind(AWS, "ultraserverMode", "ultraserverMode: 1, 2 or 4", _ultraserver),
    "SimulationConfig": _Kind(OURS, "environment", "environment: {NEURON_RT_LOG_LEVEL: INFO}", _simulation),
}


def _one_of(value: object, allowed: tuple[int, ...], where: str, kind: _Kind) -> int:
    if type(value) is not int or value not in allowed:  # True is an int to isinstance
        numbers = f"{', '.join(map(str, allowed[:-1]))} or {allowed[-1]}"
        raise ClaimError(f"{where} is {_what(value)} and must be the number {numbers}: write {kind.example}")
    return value


def _check_variable(name: object, content: object, where: str) -> None:
    if not isinstance(name, str) or not name.startswith(_PREFIX) or len(name) > _MAX_NAME or set(name) - _NAME_LETTERS:
        raise ClaimError(
            f"{where} sets {_what(name)}: only variables that begin with {_PREFIX}, of A to Z, 0 to 9 and _, at most "
            f"{_MAX_NAME} long, can be set here; set others in the pod's containers[].env"
        )
    if name in _SET_BY_US or name.startswith(_OWN_PREFIX):
        instead = _SET_BY_US.get(name, "choose another name")
        raise ClaimError(f"{where} sets {name}, which the driver sets itself: remove it, and {instead}")
    if not isinstance(content, str) or len(content) > MAX_VALUE or not content.isprintable():
        raise ClaimError(
            f"{where}.{name} is {_what(content)} and must be a string of at most {MAX_VALUE} printable characters: "
            f'write {name}: "…", in quotes'
        )


def _last(configs: Iterable[Config], kind: type["_AnyConfig"]) -> "_AnyConfig | None":
    found = None
    for config in configs:
        if isinstance(config, kind):
            found = config
    return found


_AnyConfig = TypeVar("_AnyConfig", NeuronConfig, UltraServerConfig, SimulationConfig)


def _places(claim: Mapping[str, Any], entries: int) -> Iterator[str]:
    """Where in the claim's spec each of so many entries of its result stands.

    The scheduler copies them in order. One that names requests it writes once for each of them that was allocated.
    """
    devices = claim["spec"]["devices"]
    results = claim["status"]["allocation"]["devices"].get("results") or []
    allocated = {result["request"].partition("/")[0]: result["request"] for result in results}
    names = [(request["name"], allocated.get(request["name"])) for request in devices.get("requests") or []]
    places = []
    for number, entry in enumerate(devices.get("config") or []):
        requests = entry.get("requests") or ()
        copies = sum(name in requests or chosen in requests for name, chosen in names) if requests else 1
        places += [f"spec.devices.config[{number}]"] * copies
    return iter(places if len(places) == entries else ["spec.devices.config"] * entries)


def _class_of(claim: Mapping[str, Any], requests: frozenset[str]) -> str:
    """The DeviceClass that a result's configuration comes from, as far as one can tell."""
    classes = set()
    for request in claim["spec"]["devices"].get("requests") or []:
        chosen = [(request["name"], request.get("exactly") or {})]
        chosen += [(f"{request['name']}/{sub['name']}", sub) for sub in request.get("firstAvailable") or []]
        classes |= {of.get("deviceClassName") for name, of in chosen if not requests or name in requests}
    names = sorted(name for name in classes if name)
    return f"spec.config of its DeviceClass{f' {names[0]}' if len(names) == 1 else ''}"


def _known() -> str:
    return "NeuronConfig or UltraServerConfig (" + AWS + ") or SimulationConfig (" + OURS + ")"


def _what(value: object) -> str:
    """A value in an error message: short, printable, and never the inside of something that can be deep."""
    if isinstance(value, str):
        return _quoted(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _shortened(str(value)) if isinstance(value, float) or value.bit_length() < 256 else "a huge number"
    return "an object" if isinstance(value, Mapping) else "a list"


def _quoted(text: object) -> str:
    return json.dumps(_shortened(str(text)))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
