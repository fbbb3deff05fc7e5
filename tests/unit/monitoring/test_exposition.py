"""A node's page as others read it: the official parsers of both formats, and what AWS's own collectors look for.

What those look for is in the sources of OpenTelemetry's awscontainerinsightreceiver, which the CloudWatch agent is
built from: it keeps `neuron.*`, `system_.*`, `execution_.*` and `hardware_ecc_.*` (AWS's fork; upstream not these),
and finds the hardware as `neuron_hardware`, which only OpenMetrics makes of `neuron_hardware_info`.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable

import pytest
from neuron_dra_driver.agent import http_server
from neuron_dra_driver.virtual_nodes.device_page import DevicePage
from neuron_dra_driver.virtual_nodes.metrics import FleetMetrics
from neuron_dra_driver.virtual_nodes.workloads import Workloads
from node_page import busy_node, page_of
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families
from virtual_fleet import DRIVER, neuron_node, occupy, tell

OPENMETRICS = "application/openmetrics-text"
PROMETHEUS = f"{OPENMETRICS};version=1.0.0,{OPENMETRICS};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
KEPT = re.compile("neuron.*|system_.*|execution_.*|hardware_ecc_.*")

INSTANCE = {"instance_name", "instance_id", "instance_type", "availability_zone", "region", "subnet_id"}
OURS = {"pod", "namespace", "container", "pid"}
OF_CORES = {f"neuroncore_memory_usage_{kind}": f"NeuronCore memory utilization for {kind}" for kind in (
    "constants", "model_code", "model_shared_scratchpad", "runtime_memory", "tensors")}  # fmt: skip
SCRIPT: dict[str, tuple[str, str]] = {
    "neuroncore_utilization_ratio": ("NeuronCore utilization ratio", "runtime_tag neuroncore"),
    **{name: (text, "runtime_tag memory_location neuroncore") for name, text in OF_CORES.items()},
    "neuron_runtime_memory_used_bytes": ("Runtime memory used bytes", "runtime_tag memory_location"),
    "neuron_runtime_vcpu_usage_ratio": ("Runtime vCPU utilization ratio", "runtime_tag usage_type"),
    "execution_errors": ("Execution errors total", "runtime_tag error_type"),
    "execution_errors_created": ("Execution errors total", "runtime_tag error_type"),
    "execution_status": ("Execution status total", "runtime_tag status_type"),
    "execution_status_created": ("Execution status total", "runtime_tag status_type"),
    "execution_latency_seconds": ("Execution latency in seconds", "runtime_tag percentile"),
    "hardware_ecc_events": ("Hardware ecc events total", "event_type neuron_device_index"),
    "hardware_ecc_events_created": ("Hardware ecc events total", "event_type neuron_device_index"),
    "system_vcpu_count": ("System vCPU count", ""),
    "system_vcpu_usage_ratio": ("System CPU utilization ratio", "usage_type"),
    **{f"system_{of}_{what}_bytes": (f"System {of} {what}_bytes bytes", "")
       for of in ("memory", "swap") for what in ("total", "used")},
    "instance_info": ("EC2 instance information", ""),
    "neuron_hardware_info": ("Neuron Hardware Information", "neuron_device_count neuroncore_per_device_count"),
}  # fmt: skip
"""What AWS's neuron-monitor-prometheus.py exports: help text and labels beside the instance's, by the family's name."""


async def scraped(page: bytes, accept: str = "") -> tuple[str, str]:
    """Content type and body."""

    async def answer() -> tuple[int, bytes]:
        return 200, page

    server = await http_server.serve({"/metrics": answer}, port=0, host="127.0.0.1")
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(f"GET /metrics HTTP/1.1\r\nHost: h\r\n{f'accept: {accept}' if accept else 'X: y'}\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    kind = re.search(rb"^Content-Type: (.*)\r$", head, re.MULTILINE)
    assert kind
    return kind[1].decode(), body.decode()


def samples(families: Iterable[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "a series twice"
            found[key] = sample.value
    return found


@pytest.fixture(scope="module")
def page() -> bytes:
    return page_of(busy_node("worker-1"))


async def test_both_formats_say_the_same_to_their_parsers(page: bytes) -> None:
    plain, text = await scraped(page)
    assert plain.startswith("text/plain; version=0.0.4")
    modern, openmetrics = await scraped(page, PROMETHEUS)
    assert modern.startswith(f"{OPENMETRICS}; version=1.0.0")
    assert openmetrics.endswith("# EOF\n")
    found = samples(openmetrics_families(openmetrics))
    assert found == samples(text_families(text))
    assert len(found) > 16 * 4 * 6


async def test_a_page_of_many_nodes_comes_in_pieces_and_says_the_same_in_both_formats() -> None:
    workloads = Workloads(driver=DRIVER)
    devices = DevicePage(workloads, clock=lambda: 1_767_300_000.0)
    for number in range(30):
        tell(devices, neuron_node(f"rainier-{number}"))
    occupy(workloads, "rainier-7")

    async def page() -> AsyncGenerator[bytes, None]:
        yield FleetMetrics().render()
        async for block in devices.blocks():
            yield block

    plain, text = await streamed(page)
    modern, openmetrics = await streamed(page, PROMETHEUS)
    assert (plain.partition(";")[0], modern.partition(";")[0]) == ("text/plain", OPENMETRICS)
    found = samples(openmetrics_families(openmetrics))
    assert found == samples(text_families(text))
    assert {dict(labels).get("node") for (name, labels) in found if name == "instance_info"} == {
        f"rainier-{number}" for number in range(30)
    }


async def streamed(page: http_server.Stream, accept: str = "text/plain") -> tuple[str, str]:
    """Content type and body of a page that comes in chunks."""
    server = await http_server.serve({}, streams={"/metrics": page}, port=0, host="127.0.0.1")
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1 << 20)
    try:
        writer.write(f"GET /metrics?x=y HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert "Transfer-Encoding: chunked" in head
        body = b""
        while length := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(length + 2))[:-2]
        assert await reader.read() == b"\r\n"
    finally:
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
    kind = re.search(r"^Content-Type: (.*)\r$", head, re.MULTILINE)
    assert kind
    return kind[1], body.decode()


async def test_a_page_that_breaks_off_is_no_whole_one() -> None:
    async def page() -> AsyncGenerator[bytes, None]:
        yield b"a 1\n"
        raise OSError

    with pytest.raises(asyncio.IncompleteReadError):
        await streamed(page)


def test_the_page_has_the_families_of_the_script_with_its_words_and_labels(page: bytes) -> None:
    found = {f.name: f for f in text_families(page.decode()) if not f.name.startswith("neuron_sim_")}
    assert found.keys() == SCRIPT.keys()
    for name, (text, labels) in SCRIPT.items():
        of_process = OURS if "runtime_tag" in labels else set()
        assert found[name].documentation == text
        assert {frozenset(sample.labels) for sample in found[name].samples} == {
            frozenset({*INSTANCE, *of_process, *labels.split()})
        }, name
    usages = {sample.labels["usage_type"] for sample in found["system_vcpu_usage_ratio"].samples}
    assert usages == {"user", "system"}, "AWS's dashboard adds them up to how busy a node is"


async def test_who_does_not_ask_for_openmetrics_gets_text(page: bytes) -> None:
    assert (await scraped(page, "text/plain"))[0].startswith("text/plain")


async def test_the_cloudwatch_agent_finds_what_it_looks_for(page: bytes) -> None:
    _, text = await scraped(page, PROMETHEUS)
    families = {family.name: family for family in openmetrics_families(text) if KEPT.match(family.name)}
    hardware = families["neuron_hardware"]
    assert hardware.type == "info"
    assert (
        hardware.samples[0].labels.items() >= {"neuron_device_count": "16", "neuroncore_per_device_count": "4"}.items()
    )
    # what it adds itself, as zeros, where a metric is missing
    wanted = {
        "execution_status": ("status_type", "completed"),
        "execution_errors": ("error_type", "generic"),
        "neuron_runtime_memory_used_bytes": ("memory_location", "neuron_device"),
        "execution_latency_seconds": ("percentile", "p50"),
        "neuroncore_utilization_ratio": ("neuroncore", "63"),
        **{
            f"neuroncore_memory_usage_{kind}": ("neuroncore", "63")
            for kind in ("constants", "model_code", "model_shared_scratchpad", "runtime_memory", "tensors")
        },
    }
    for name, (label, value) in wanted.items():
        found = [sample.labels for sample in families[name].samples if sample.labels[label] == value]
        assert found, name
        # it renames these
        assert all({"instance_id", "instance_name", "runtime_tag"} <= labels.keys() for labels in found)
    # of these it makes NeuronDevice, and what its translator calls neurondevice_hw_ecc_events
    ecc = families["hardware_ecc_events"]
    assert {sample.name for sample in ecc.samples} == {"hardware_ecc_events_total", "hardware_ecc_events_created"}
    assert all({"instance_id", "neuron_device_index", "event_type"} <= sample.labels.keys() for sample in ecc.samples)


async def test_opentelemetry_finds_its_labels(page: bytes) -> None:
    """Its newer pipeline keeps the names and renames neuroncore, neuron_device_index and runtime_tag."""
    _, text = await scraped(page, PROMETHEUS)
    families = {family.name: family for family in openmetrics_families(text)}
    assert {s.labels["neuron_device_index"] for s in families["hardware_ecc_events"].samples} == set(
        map(str, range(16))
    )
    assert {s.labels["event_type"] for s in families["hardware_ecc_events"].samples} == {
        f"{memory}_ecc_{what}" for memory in ("mem", "sram") for what in ("corrected", "uncorrected")
    }
    assert {s.labels["neuroncore"] for s in families["neuroncore_utilization_ratio"].samples} == set(
        map(str, range(64))
    )
