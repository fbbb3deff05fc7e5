"""Whatever happened to the cluster, and wherever the operator was killed: it ends up right, and stays quiet."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_operator import applying, kube, names, survey
from neuron_operator.expansion import share_out
from neuron_operator.fleet import Fleet
from neuron_operator.kube import ApiError
from neuron_operator.nodes import node_facts
from neuron_operator.planning import plan

ZONES = st.sampled_from(["a", "b"])
SELECTORS = st.sampled_from(
    [
        None,
        {},
        {"matchLabels": {"zone": "a"}},
        {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]},
        {"matchExpressions": [{"key": names.LABEL_POOL, "operator": "DoesNotExist"}]},
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("node"), st.sampled_from(["n1", "n2", "n3"]), ZONES),
    st.tuples(st.just("drop node"), st.sampled_from(["n1", "n2", "n3"])),
    st.tuples(st.just("pool"), st.sampled_from(["p1", "p2"]), SELECTORS, st.sampled_from(["trn2.48xlarge", "nope"])),
    st.tuples(st.just("drop pool"), st.sampled_from(["p1", "p2"])),
    st.tuples(st.just("cloud label"), st.sampled_from(["n1", "n2", "n3"])),
    st.tuples(st.just("fault"), st.sampled_from(["f1", "f2"]), st.sampled_from(["n1", "n2"]), st.sampled_from([0, 99])),
    st.tuples(st.just("drop fault"), st.sampled_from(["f1", "f2"])),
    st.tuples(st.just("extended resources"), st.booleans()),
    st.tuples(st.just("killed after"), st.integers(0, 4)),
    st.tuples(st.just("operator runs")),
)


def take(cluster, step, *, node, pool, fault, device_class, managed_fields):
    match step:
        case ("fault", name, target, chip):
            cluster.put(kube.FAULTS, cluster.of(kube.FAULTS).get(name) or fault(name, target, chip=chip))
        case ("drop fault", name) if name in cluster.of(kube.FAULTS):
            cluster.drop(kube.FAULTS, name)
        case ("extended resources", kept):
            cluster.put(kube.DEVICE_CLASSES, device_class(kept=kept))
        case ("node", name, zone):
            item = cluster.of(kube.NODES).get(name) or node(name, labels={"zone": zone})
            item["metadata"]["labels"]["zone"] = zone
            cluster.put(kube.NODES, item)
        case ("drop node", name) if name in cluster.of(kube.NODES):
            cluster.drop(kube.NODES, name)
            if name in cluster.of(kube.NEURON_NODES):  # the garbage collector
                cluster.drop(kube.NEURON_NODES, name)
        case ("pool", name, selector, instance_type):
            item = cluster.of(kube.POOLS).get(name) or pool(name)
            item["spec"] = {"instanceType": instance_type}
            if selector is not None:
                item["spec"]["nodeSelector"] = selector
            cluster.put(kube.POOLS, item)
        case ("drop pool", name) if name in cluster.of(kube.POOLS):
            cluster.drop(kube.POOLS, name)
        case ("cloud label", name) if name in cluster.of(kube.NODES):
            item = cluster.of(kube.NODES)[name]
            owned = {key for entry in item["metadata"]["managedFields"] for key in
                     entry["fieldsV1"]["f:metadata"]["f:labels"]}  # fmt: skip
            if f"f:{names.LABEL_INSTANCE_TYPE}" not in owned:
                item["metadata"]["labels"][names.LABEL_INSTANCE_TYPE] = "m5.large"
                item["metadata"]["managedFields"].append(managed_fields("cloud", [names.LABEL_INSTANCE_TYPE]))
                cluster.put(kube.NODES, item)


async def killed_after(cluster, writes):
    """Run the operator and kill it after some writes; all later ones fail."""
    fleet = Fleet(driver_name=names.AWS_DRIVER_NAME)
    await survey.list_objects(fleet, cluster)
    await survey.look_around(fleet, cluster, driver_name=names.AWS_DRIVER_NAME)
    done = len(cluster.writes)

    class Killed:
        def __getattr__(self, verb):
            if len(cluster.writes) - done >= writes:
                raise ApiError(0, "", "killed")
            return getattr(cluster, verb)

    await applying.apply(plan(fleet.snapshot(), now="2026-11-20T00:00:00Z"), api=Killed(), fleet=fleet)


def check(cluster):
    nodes = [node_facts(item) for item in cluster.of(kube.NODES).values()]
    shares = share_out(list(cluster.of(kube.POOLS).values()), nodes, members={})
    owners = {node.name: share.wish for share in shares for node in share.nodes}
    neuron_nodes = cluster.of(kube.NEURON_NODES)
    for node in nodes:
        wish = owners.get(node.name)
        made = neuron_nodes.get(node.name)
        if wish is None:
            assert made is None
            assert not node.own_labels
        elif wish.problem is None:
            assert made["spec"]["pool"] == wish.name
            assert made["metadata"]["ownerReferences"][0]["uid"] == node.uid
            assert node.labels[names.LABEL_POOL] == wish.name
            if names.LABEL_INSTANCE_TYPE in node.other_labels:
                assert node.labels[names.LABEL_INSTANCE_TYPE] == "m5.large"
            for device_class in cluster.of(kube.DEVICE_CLASSES).values():
                kept = "extendedResourceName" in device_class["spec"]
                assert made["spec"]["resources"] == ("DRA" if kept else "DevicePlugin")
        elif made is not None:
            assert made["spec"]["pool"] == wish.name
        if made is not None:
            assert [each["name"] for each in made["spec"].get("faults", [])] == sorted(
                name
                for name, item in cluster.of(kube.FAULTS).items()
                if item["spec"]["target"] == {"nodeName": node.name, "chip": 0}
            )
    assert neuron_nodes.keys() <= {node.name for node in nodes}


@settings(deadline=None, max_examples=120)
@given(st.lists(STEPS, max_size=14))
def test_any_history_with_kills_in_between_ends_right_and_quiet(
    new_cluster, node, pool, fault, device_class, managed_fields, settle, history
):
    async def live():
        cluster = new_cluster()
        for step in history:
            match step:
                case ("killed after", writes):
                    await killed_after(cluster, writes)
                case ("operator runs",):
                    await settle(cluster)
                case _:
                    make = {"node": node, "pool": pool, "fault": fault, "device_class": device_class}
                    take(cluster, step, **make, managed_fields=managed_fields)
        await settle(cluster)
        check(cluster)
        quiet = len(cluster.writes)
        await settle(cluster)
        assert len(cluster.writes) == quiet

    asyncio.run(live())
