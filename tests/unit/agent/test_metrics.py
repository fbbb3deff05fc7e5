"""The agent's metrics as Prometheus reads them: its own parser is the judge."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_dra_driver.metrics import BUCKETS, ERROR, PREFIX, SUCCESS, Metrics
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

HISTOGRAMS = ("prepare", "unprepare", "allocate")


def scrape(metrics: Metrics) -> dict[str, Metric]:
    return {family.name.removeprefix(PREFIX): family for family in text_string_to_metric_families(read(metrics))}


def read(metrics: Metrics) -> str:
    return metrics.render().decode()


def value(metrics: Metrics, family: str, sample: str = "", **labels: str) -> float:
    name = PREFIX + (sample or family)
    (found,) = [s.value for s in scrape(metrics)[family].samples if (s.name, s.labels) == (name, labels)]
    return found


def test_every_series_is_there_from_the_start() -> None:
    """A rate over a series that appears with its first event misses that event."""
    metrics = Metrics()
    families = scrape(metrics)
    assert {name: family.type for name, family in families.items()} == {
        "prepare_duration_seconds": "histogram",
        "unprepare_duration_seconds": "histogram",
        "allocate_duration_seconds": "histogram",
        "prepared_claims": "gauge",
        "published_devices": "gauge",
        "unhealthy_devices": "gauge",
        "registered": "gauge",
        "quarantined_checkpoints": "gauge",
        "prepared_claims_read": "counter",
        "reconciled_claims": "counter",
        "build_info": "gauge",
        "node_info": "gauge",
    }
    assert all(family.documentation.endswith(".") for family in families.values())
    for operation in HISTOGRAMS:
        samples = families[f"{operation}_duration_seconds"].samples
        assert {s.labels["result"] for s in samples} == {SUCCESS, ERROR}
        assert {s.labels["le"] for s in samples if "le" in s.labels} == {*map(str, BUCKETS), "+Inf"}
        assert {s.value for s in samples} == {0}


def test_gauges_and_counters() -> None:
    metrics = Metrics()
    metrics.devices.set(16)
    metrics.devices.set(15)
    metrics.read["watch"].inc()
    metrics.read["watch"].inc()
    metrics.reconciled["removed"].inc(3)
    assert value(metrics, "published_devices") == 15
    assert value(metrics, "prepared_claims_read", "prepared_claims_read_total", source="watch") == 2
    assert value(metrics, "prepared_claims_read", "prepared_claims_read_total", source="api") == 0
    assert value(metrics, "reconciled_claims", "reconciled_claims_total", action="removed") == 3


def test_the_version_is_a_label() -> None:
    (sample,) = scrape(Metrics())["build_info"].samples
    assert sample.value == 1
    assert sample.labels["version"]


@given(st.lists(st.one_of(st.sampled_from(BUCKETS), st.floats(0, 60)), min_size=1, max_size=20))
@settings(max_examples=20)  # each is a whole page to parse
def test_a_duration_is_in_each_bucket_that_holds_it(seconds: list[float]) -> None:
    metrics = Metrics()
    for one in seconds:
        metrics.prepare[SUCCESS].observe(one)
    samples = scrape(metrics)["prepare_duration_seconds"].samples
    buckets = {float(s.labels["le"]): s.value for s in samples if s.labels["result"] == SUCCESS and "le" in s.labels}
    assert buckets == {bound: sum(one <= bound for one in seconds) for bound in (*BUCKETS, float("inf"))}
    others = {s.name.rpartition("_")[2]: s.value for s in samples if s.labels == {"result": SUCCESS}}
    assert others == {"count": len(seconds), "sum": pytest.approx(sum(seconds))}
    assert {s.value for s in samples if s.labels["result"] == ERROR} == {0}
