"""A million opaque configurations: none crashes the agent, none is applied in half.

    python tests/soak/fuzz_config.py --examples 1000000 --seed 7

Each example is an allocated claim with a few configurations: valid ones, valid ones with something changed (a field, a
type, a letter of the JSON), and anything at all, up to the 10 KiB that the API server allows. What the agent makes of
it is compared with an oracle that was written apart from it: refused if and only if something is wrong anywhere, and
if not, every request has exactly what the rules of precedence give it. One in a hundred is also prepared on a
simulated node, so that a refusal is seen to leave nothing behind and a success everything.

The seed decides everything; it is printed, and so is the example that failed.
"""

import argparse
import collections
import json
import random
import string
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuron_dra_driver.allocations.allocation import Allocation, allocation_on
from neuron_dra_driver.allocations.grants import grant
from neuron_dra_driver.errors import ClaimError
from neuron_dra_driver.node import SimulatedNode, standalone
from neuron_dra_driver.prepared.runtime_tree import RuntimeTrees
from neuron_dra_driver.prepared.store import ClaimStore
from neuron_dra_driver.records.checkpoint import Checkpoint

DRIVER, POOL, UID = "neuron.aws.com", "worker-1", "uid"
AWS, OURS = "neuron.aws.com/v1", "neuron-sim.dev/v1alpha1"
PREPARED_EACH = 100
MAX_BYTES = 10 * 1024

Json = Any


class Generator:
    """Claims out of a seeded source of chance."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def claim(self) -> dict[str, Json]:
        """An allocated claim with up to four configurations, as the API server would give it."""
        requests = self._pick(["a"], ["a", "b"], ["a/x", "b"])
        results = [
            {"request": request, "driver": DRIVER, "pool": POOL, "device": self._pick(*NAMES), "adminAccess": False}
            for request in requests
        ]
        config = [self._entry(requests) for _ in range(self._chance.choice((1, 1, 1, 2, 3, 4)))]
        return {
            "metadata": {"namespace": "team", "name": "mine", "uid": UID},
            "spec": {
                "devices": {
                    "requests": [{"name": request.partition("/")[0], "exactly": {}} for request in requests],
                    "config": [entry for entry in config if entry["source"] == "FromClaim"],
                }
            },
            "status": {"allocation": {"devices": {"results": results, "config": config}}},
        }

    def _entry(self, requests: list[str]) -> dict[str, Json]:
        parameters = self._parameters()
        if len(json.dumps(parameters)) > MAX_BYTES:
            parameters = None
        named = [*requests, *(request.partition("/")[0] for request in requests), "other"]
        return {
            "source": self._pick("FromClass", "FromClaim"),
            "requests": self._chance.sample(named, self._chance.choice((0, 0, 1, 2))),
            "opaque": {"driver": DRIVER if self._chance.random() < 0.95 else "dra.net", "parameters": parameters},
        }

    def _parameters(self) -> Json:
        kind = self._chance.random()
        if kind < 0.35:
            return self._valid()
        if kind < 0.65:
            return self._changed(self._valid())
        if kind < 0.85:
            return self._misspelt(self._valid())
        return self._anything(4)

    def _valid(self) -> dict[str, Json]:
        match self._chance.randrange(3):
            case 0:
                return {"apiVersion": AWS, "kind": "NeuronConfig", "logicalNeuronCore": self._pick(1, 2)}
            case 1:
                return {"apiVersion": AWS, "kind": "UltraServerConfig", "ultraserverMode": self._pick(1, 2, 4)}
            case _:
                names = [f"NEURON_{self._word(string.ascii_uppercase)}" for _ in range(self._chance.randrange(4))]
                environment = {name: self._word(string.printable[:95]) for name in names}
                return {"apiVersion": OURS, "kind": "SimulationConfig", "environment": environment}

    def _changed(self, parameters: dict[str, Json]) -> dict[str, Json]:
        """Another value, a field more, a field less, on any level."""
        inside = parameters.get("environment")
        target = inside if isinstance(inside, dict) and inside and self._chance.random() < 0.5 else parameters
        key = self._pick(*target)
        match self._chance.randrange(4):
            case 0:
                target[key] = self._anything(2)
            case 1:
                target[self._pick(*SURPRISES, self._word(string.printable))] = self._anything(2)
            case 2:
                del target[key]
            case _:
                target[self._pick(key.upper(), key + "s", key[1:], " " + key)] = target.pop(key)
        return parameters

    def _misspelt(self, parameters: Json) -> Json:
        """A letter of its JSON changed; what is no JSON any more would not have come here."""
        text = list(json.dumps(parameters))
        for _ in range(self._chance.randint(1, 3)):
            at = self._chance.randrange(len(text))
            text[at] = self._pick(
                "", text[at] * 2, *'0123456789"{}[],:.eE-\\ ', "\\u0000", "\\ud800", "é", "true", "null"
            )
        try:
            return json.loads("".join(text))
        except (ValueError, RecursionError):
            return parameters

    def _anything(self, depth: int) -> Json:
        match self._chance.randrange(9 if depth else 7):
            case 0:
                return None
            case 1:
                return self._pick(True, False)
            case 2:
                return self._pick(0, 1, 2, 3, 4, -1, 2**31, 2**64, 10**30, 10**4000)
            case 3:
                return self._pick(1.0, 2.0, 0.5, -0.0, 1e308, float("inf"))
            case 4 | 5:
                return self._pick(*SURPRISES)
            case 6:
                return self._word(string.printable) * self._pick(1, 1, 1, 300)
            case 7:
                return [self._anything(depth - 1) for _ in range(self._chance.randrange(4))]
            case _:
                size = self._pick(0, 1, 2, 3, 18)
                keys = [self._pick(*SURPRISES, f"NEURON_{n}", self._word(string.printable)) for n in range(size)]
                return {key: self._anything(depth - 1) for key in keys}

    def _word(self, letters: str) -> str:
        return "".join(self._chance.choices(letters, k=self._chance.randrange(1, 12)))

    def _pick(self, *choices: Json) -> Json:
        return choices[int(self._chance.random() * len(choices))]


SURPRISES = (
    AWS, OURS, "neuron.aws.com/v1alphav1", "v1", "NeuronConfig", "UltraServerConfig", "SimulationConfig", "apiVersion",
    "kind", "spec", "metadata", "logicalNeuronCore", "logicalNeuronCoreCount", "ultraserverMode", "environment",
    "NEURON_RT_VISIBLE_CORES", "NEURON_LOGICAL_NC_CONFIG", "NEURON_RT_ULTRASERVER_MODE", "NEURON_SIM_SIMULATED",
    "NEURON_", "NEURON_X", "neuron_x", "PATH", "LD_PRELOAD", "NEURON_X=Y", "__class__", "", "1", "2", "\x00", "\n",
    "\ud800", "\u202e", "💥", "é" * 200,
)  # fmt: skip


# --- the oracle: the rules again, in other words


def right(parameters: Json) -> bool:
    """Whether an object is valid as a whole."""
    if not isinstance(parameters, dict):
        return False
    shape = {key: type(value).__name__ for key, value in parameters.items() if key not in ("apiVersion", "kind")}
    match parameters.get("apiVersion"), parameters.get("kind"), shape:
        case "neuron.aws.com/v1", "NeuronConfig", {"logicalNeuronCore": "int", **rest} if not rest:
            return 1 <= parameters["logicalNeuronCore"] <= 2
        case "neuron.aws.com/v1", "UltraServerConfig", {"ultraserverMode": "int", **rest} if not rest:
            return parameters["ultraserverMode"] in {1, 2, 4}
        case "neuron-sim.dev/v1alpha1", "SimulationConfig", {"environment": "dict", **rest} if not rest:
            variables = parameters["environment"]
            return len(variables) <= 16 and all(right_variable(*variable) for variable in variables.items())
    return False


def right_variable(name: str, value: Json) -> bool:
    """Whether a variable may be set."""
    ultraserver = {f"NEURON_RT_ULTRASERVER_{what}" for what in ("MODE", "SERVER_ID", "NODE_ID")}
    reserved = {"NEURON_RT_VISIBLE_CORES", "NEURON_LOGICAL_NC_CONFIG", *ultraserver}
    letters = string.ascii_uppercase + string.digits + "_"
    return (
        name[:7] == "NEURON_"
        and name[:11] != "NEURON_SIM_"
        and name not in reserved
        and len(name) <= 128
        and not name.strip(letters)
        and all(letter in letters for letter in name)
        and type(value) is str
        and len(value) <= 256
        and all(letter.isprintable() for letter in value)
    )


def expected(claim: dict[str, Json]) -> dict[str, dict[str, Json]] | None:
    """What holds for each request, by kind; None when the claim has to be refused for its configuration alone."""
    devices = claim["status"]["allocation"]["devices"]
    ours = [entry for entry in devices["config"] if entry["opaque"]["driver"] == DRIVER]
    if not all(right(entry["opaque"]["parameters"]) for entry in ours):
        return None
    holds: dict[str, dict[str, Json]] = {}
    for request in (result["request"] for result in devices["results"]):
        holds[request.split("/")[0]] = of_kind = {}
        for source in ("FromClass", "FromClaim"):
            for entry in ours:
                named = entry["requests"]
                if entry["source"] == source and (not named or request in named or request.split("/")[0] in named):
                    of_kind[entry["opaque"]["parameters"]["kind"]] = entry["opaque"]["parameters"]
    return holds


# --- the comparison


def found(allocation: Allocation) -> dict[str, dict[str, Json]]:
    """What the agent says that holds, in the form of `expected`."""
    holds: dict[str, dict[str, Json]] = {}
    for request in allocation.requests:
        config, of_kind = request.config, holds.setdefault(request.name, {})
        if config.neuron:
            value: Json = config.neuron.logical_neuron_core
            of_kind["NeuronConfig"] = {"apiVersion": AWS, "kind": "NeuronConfig", "logicalNeuronCore": value}
        if config.ultraserver:
            value = config.ultraserver.ultraserver_mode
            of_kind["UltraServerConfig"] = {"apiVersion": AWS, "kind": "UltraServerConfig", "ultraserverMode": value}
        if config.simulation:
            value = dict(config.simulation.environment)
            of_kind["SimulationConfig"] = {"apiVersion": OURS, "kind": "SimulationConfig", "environment": value}
    return holds


def check(claim: dict[str, Json], node: SimulatedNode) -> str:
    """Give the agent one claim; how it ended, or an AssertionError. Any other exception is a crash."""
    wanted = expected(claim)
    allocation, refusal = None, ""
    try:
        allocation = allocation_on(claim, uid=UID, driver=DRIVER, pool=POOL)
        grant(allocation, node)
    except ClaimError as error:
        refusal = str(error)
    assert len(refusal.encode()) < 1024, f"too long for an Event: {refusal}"
    if allocation is None:
        assert wanted is None, f"refused, and nothing is wrong: {refusal}"
        return "refused"
    assert wanted is not None, "accepted, and something is wrong"
    assert found(allocation) == wanted
    return "does not fit the devices" if refusal else "accepted"


def check_prepared(claim: dict[str, Json], node: SimulatedNode, store: ClaimStore, root: Path, ended: str) -> None:
    """Prepare it, too: all or nothing is on the node, and the variables are those of the configuration."""
    if ended != "refused":
        allocation = allocation_on(claim, uid=UID, driver=DRIVER, pool=POOL)
        try:
            store.prepare(allocation, node)
        except ClaimError:
            assert ended == "does not fit the devices"
        else:
            assert ended == "accepted"
            spec = json.loads((root / "cdi" / f"{DRIVER}-claim_{UID}.json").read_text())
            edits = {device["name"]: device["containerEdits"] for device in spec["devices"]}
            for request, of_kind in (expected(claim) or {}).items():
                env = edits[f"{UID}_{request}"]["env"]
                for name, value in of_kind.get("SimulationConfig", {}).get("environment", {}).items():
                    assert f"{name}={value}" in env
                if neuron := of_kind.get("NeuronConfig"):
                    assert f"NEURON_LOGICAL_NC_CONFIG={neuron['logicalNeuronCore']}" in env
            store.unprepare(UID)
    left = [path for folder in ("cdi", "run") for path in (root / folder).glob("*")]
    assert not left, f"left behind: {left}"
    assert not store.prepared()


NODE = standalone(name=POOL, type_name="trn2u.48xlarge", partitions="physical", devices="both")
NAMES = ("neuron-device-0", "neuron-core-8", "neuron-physical-core-20", "neuron-node")


def run(examples: int, seed: int, tell: Callable[[str], None] = print) -> int:
    """All examples; 0, or 1 when one failed."""
    claims = Generator(random.Random(seed))
    ends: collections.Counter[str] = collections.Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        root = Path(folder)
        (root / "image" / "bin").mkdir(parents=True)
        store = ClaimStore(
            driver=DRIVER,
            cdi_directory=root / "cdi",
            run_directory=root / "run",
            checkpoint=Checkpoint(root / "plugin"),
            trees=RuntimeTrees(root / "image", root / "state"),
        )
        store.refresh()
        for number in range(examples):
            claim = claims.claim()
            try:
                ended = check(claim, NODE)
                if number % PREPARED_EACH == 0:
                    check_prepared(claim, NODE, store, root, ended)
            except Exception as error:
                tell(f"example {number} of seed {seed}: {type(error).__name__}: {error}\n{json.dumps(claim)}")
                return 1
            ends[ended] += 1
        store.close()
    seconds = time.monotonic() - started
    counts = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    tell(f"seed {seed}: {examples} examples in {seconds:.0f} s, no crash, nothing in half: {counts}")
    return 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    return run(options.examples, options.seed)


if __name__ == "__main__":
    sys.exit(main())
