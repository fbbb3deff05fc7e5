"""What the extender decides, without any I/O."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from neuron_device_model import contiguous
from neuron_device_model.catalog import instance_type, instance_types
from neuron_operator.extender.demand import Demand, Holding, demand, holding
from neuron_operator.extender.occupancy import Occupancy, Refusal, ServedNode, from_neuron_node, from_node, place
from neuron_operator.extender.occupancy import occupancy as occupancy_of

TYPES = ["inf1.6xlarge", "inf2.48xlarge", "trn1.2xlarge", "trn1.32xlarge", "trn2.48xlarge", "trn3.48xlarge"]


def node(name="trn1.32xlarge", lnc=None):
    kind = instance_type(name)
    return ServedNode("n", kind, lnc or kind.chip.default_logical_neuron_core)


def held(uid, *, ids=None, chips=0, cores=0, order=("", "")):
    return Holding(uid, f"default/{uid}", "n", Demand(chips, cores), ids, order)


def container(*, chips=0, cores=0, **more):
    requests = {"cpu": "1"}
    requests |= {"aws.amazon.com/neuron": str(chips)} if chips else {}
    requests |= {"aws.amazon.com/neuroncore": str(cores)} if cores else {}
    return {"resources": {"requests": requests}, **more}


# --- what a pod asks for


def test_containers_of_a_pod_are_summed():
    assert demand({"spec": {"containers": [container(chips=1), container(chips=3), container()]}}) == Demand(4, 0)


def test_an_init_container_reuses_what_the_others_get_later():
    spec = {"initContainers": [container(cores=2), container(cores=8)], "containers": [container(cores=3)]}
    assert demand({"spec": spec}) == Demand(0, 8)


def test_sidecars_run_beside_all_that_start_after_them():
    sidecar = container(chips=1, restartPolicy="Always")
    assert demand({"spec": {"initContainers": [sidecar], "containers": [container(chips=3)]}}) == Demand(4, 0)
    assert demand({"spec": {"initContainers": [container(chips=4), sidecar], "containers": [container()]}}).chips == 4
    assert demand({"spec": {"initContainers": [sidecar, container(chips=4)], "containers": [container()]}}).chips == 5


def test_a_pod_without_neuron_resources_asks_for_nothing():
    assert not demand({"spec": {"containers": [{"name": "c"}, container()]}})


def test_more_than_any_node_has_fits_nowhere():
    wanted = demand({"spec": {"containers": [container(cores=0), container(chips="2k")]}})
    assert isinstance(place(Occupancy(node()), wanted), Refusal)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_is_over_holds_nothing(pod, phase):
    running = pod(chips=1, spec={"nodeName": "n"}, status={"phase": "Running"})
    assert holding(running)
    assert holding(pod(chips=1, spec={"nodeName": "n"}, status={"phase": phase})) is None


def test_a_pod_that_is_not_bound_holds_nothing_even_if_it_is_annotated(pod):
    assert holding(pod(chips=1, metadata={"annotations": {"AWS_NEURON_IDS": "0"}})) is None


# --- which sets


@pytest.mark.parametrize(
    ("count", "ids"),
    [(1, (0,)), (4, (0, 1, 2, 3)), (8, tuple(range(8))), (16, tuple(range(16)))],
)
def test_an_empty_torus_gives_rows_and_pairs_of_rows(count, ids):
    assert place(Occupancy(node()), Demand(count, 0)) == ids


def test_other_numbers_are_refused_in_awss_words_for_good():
    assert place(Occupancy(node()), Demand(7, 0)) == Refusal(
        "Instance type trn1.32xlarge does not support requests for device: 7. "
        "Please request a different number of devices.",
        final=True,
    )


def test_a_broken_row_is_told_from_a_full_node():
    scattered = occupancy_of(node(), [held(str(row), ids=(4 * row,), chips=1) for row in range(4)])
    refusal = place(scattered, Demand(4, 0))
    assert isinstance(refusal, Refusal)
    assert "no 4 contiguous free Neuron devices" in refusal.reason
    assert not refusal.final
    full = occupancy_of(node(), [held("a", ids=tuple(range(16)), chips=16)])
    refusal = place(full, Demand(1, 0))
    assert isinstance(refusal, Refusal)
    assert "fewer than 1 free Neuron devices" in refusal.reason
    assert not refusal.final


def test_the_docs_sample_of_cores():
    assert place(Occupancy(node("inf1.6xlarge")), Demand(0, 9)) == tuple(range(9))


def test_a_chip_and_its_cores_exclude_one_another():
    trn1 = node("trn1.2xlarge")  # one chip of two cores
    assert isinstance(place(occupancy_of(trn1, [held("a", ids=(1,), cores=1)]), Demand(1, 0)), Refusal)
    assert place(occupancy_of(trn1, [held("a", ids=(1,), cores=1)]), Demand(0, 1)) == (0,)
    assert isinstance(place(occupancy_of(trn1, [held("a", ids=(0,), chips=1)]), Demand(0, 1)), Refusal)


def test_cores_follow_the_lnc():
    assert len(node("trn2.48xlarge", 2).cores) == 64
    assert len(node("trn2.48xlarge", 1).cores) == 128
    taken = occupancy_of(node("trn2.48xlarge", 1), [held("a", ids=(7,), cores=1)])
    assert 0 not in taken.free_chips
    assert 1 in taken.free_chips


def test_one_annotation_cannot_hold_chips_and_cores():
    refusal = place(Occupancy(node()), Demand(1, 2))
    assert isinstance(refusal, Refusal)
    assert refusal.final
    assert "ask for one of them" in refusal.reason


# --- pods that do not say what they have


def test_a_pod_of_another_scheduler_is_taken_to_have_what_the_plugin_prefers():
    taken = occupancy_of(node(), [held("a", chips=1), held("b", ids=(4, 5, 6, 7), chips=4)])
    assert taken.chips == {0, 4, 5, 6, 7}


def test_of_two_pods_with_the_same_ids_the_earlier_one_has_them():
    copied = held("b", ids=(0, 1, 2, 3), chips=4, order=("2026-02", ""))
    taken = occupancy_of(node(), [copied, held("a", ids=(0, 1, 2, 3), chips=4, order=("2026-01", ""))])
    assert taken.chips == set(range(8))


@pytest.mark.parametrize("ids", [(0,), (0, 0, 1, 1), (14, 15, 16, 17), (-1, 0, 1, 2), ()])
def test_ids_that_cannot_be_right_count_as_none(ids):
    assert len(occupancy_of(node(), [held("a", ids=ids, chips=4)]).chips) == 4


@pytest.mark.parametrize("text", ["", "0,", "zero", "0;1", "0x1"])
def test_an_annotation_that_is_no_list_of_numbers_counts_as_none(pod, text):
    found = holding(pod(chips=1, spec={"nodeName": "n"}, metadata={"annotations": {"AWS_NEURON_IDS": text}}))
    assert found is not None
    assert found.ids is None


def test_a_pod_with_several_small_containers_is_counted_although_its_sum_is_no_set():
    assert len(occupancy_of(node(), [held("a", chips=3)]).chips) == 3


# --- nodes


def test_broken_hardware_is_not_given(neuron_node):
    def fault(**more):
        return {
            "name": "f",
            "type": "Hang",
            "effect": "NoSchedule",
            "message": "m",
            "since": "2026-01-01T00:00:00Z",
        } | more

    item = neuron_node(
        instance_type="trn2.48xlarge",
        lnc=2,
        faults=[fault(chip=0), fault(chip=4, core=3), fault(chip=8, effect="None")],
    )
    found = from_neuron_node(item)
    assert found is not None
    assert set(range(16)) - found.chips == {0, 4}
    # physical core 3 of chip 4 is half of that chip's logical core 1
    assert set(range(64)) - found.cores == {0, 1, 2, 3, 17}
    assert place(Occupancy(found), Demand(4, 0)) == (8, 9, 10, 11)


def test_a_fault_takes_nothing_away_from_a_pod_that_has_it(neuron_node):
    fault = {"name": "f", "type": "Hang", "effect": "NoSchedule", "message": "m", "since": "t", "chip": 0}
    found = from_neuron_node(neuron_node(faults=[fault]))
    assert found is not None
    assert occupancy_of(found, [held("a", ids=(0,), chips=1)]).chips == {0}


@pytest.mark.parametrize(
    "spec",
    [{"resources": "DRA"}, {"instance_type": "trn9.48xlarge"}, {"lnc": 7}],
)
def test_a_node_of_another_road_or_release_is_left_alone(neuron_node, spec):
    assert from_neuron_node(neuron_node(**spec)) is None


def plugin_node(kind, **capacity):
    return {
        "metadata": {"name": "n", "labels": {"node.kubernetes.io/instance-type": kind}},
        "status": {"capacity": {f"aws.amazon.com/{key}": str(value) for key, value in capacity.items()}},
    }


@pytest.mark.parametrize(("cores", "lnc"), [(64, 2), (128, 1), (5, 2)])
def test_a_node_without_neuron_node_is_known_by_label_and_capacity(cores, lnc):
    found = from_node(plugin_node("trn2.48xlarge", neuron=16, neuroncore=cores))
    assert found is not None
    assert (found.instance_type.name, found.logical_neuron_core) == ("trn2.48xlarge", lnc)


def test_a_node_without_device_plugin_or_of_another_type_is_none_of_ours():
    assert from_node(plugin_node("trn2.48xlarge")) is None
    assert from_node(plugin_node("trn2.48xlarge", neuron=0, neuroncore=0)) is None
    assert from_node(plugin_node("m5.large", neuron=1)) is None
    assert from_node({"metadata": {"name": "n"}, "status": {"capacity": {"aws.amazon.com/neuron": "1"}}}) is None


def test_usage_maps_are_booleans_chip_by_chip_and_core_by_core():
    taken = occupancy_of(node("inf1.6xlarge"), [held("a", ids=(1,), chips=1), held("b", ids=(8,), cores=1)])
    assert taken.usage_maps() == {
        "NEURON_DEV_USAGE_MAP": "false,true,true,false",
        "NEURON_CORE_USAGE_MAP": "false,false,false,false,true,true,true,true,true" + ",false" * 7,
    }


# --- properties


@given(st.data())
def test_a_refusal_for_now_is_never_wrong(data):
    kind = instance_type(data.draw(st.sampled_from(TYPES)))
    lnc = data.draw(st.sampled_from(kind.chip.logical_neuron_core_values))
    served = ServedNode("n", kind, lnc)
    chips = data.draw(st.frozensets(st.integers(0, kind.chips - 1)))
    cores = data.draw(st.frozensets(st.integers(0, kind.cores(lnc) - 1)))
    taken = Occupancy(served, chips, frozenset(core for core in cores if core // served.cores_per_chip not in chips))
    if data.draw(st.booleans()):
        wanted = Demand(data.draw(st.integers(1, kind.chips)), 0)
        try:
            sets = contiguous.allowed_sets(kind, wanted.chips)
        except contiguous.UnsupportedCount:
            assert isinstance(place(taken, wanted), Refusal)
            return
    else:
        wanted = Demand(0, data.draw(st.integers(1, kind.cores(lnc))))
        sets = tuple(tuple(range(first, first + wanted.cores)) for first in range(kind.cores(lnc) - wanted.cores + 1))
    found = place(taken, wanted)
    possible = [one for one in sets if taken.free(wanted).issuperset(one)]
    if isinstance(found, Refusal):
        assert not possible
        assert not found.final
    else:
        assert found in possible


class Churn(RuleBasedStateMachine):
    """Pods come and go on a node, with and without the extender; every step starts from the pods alone."""

    pods = Bundle("pods")

    @initialize(kind=st.sampled_from([kind.name for kind in instance_types()]), data=st.data())
    def empty_node(self, kind, data):
        found = instance_type(kind)
        self.node = ServedNode("n", found, data.draw(st.sampled_from(found.chip.logical_neuron_core_values)))
        self.holdings = {}
        self.count = 0

    def picture(self):
        return occupancy_of(self.node, self.holdings.values())

    @rule(target=pods, chips=st.booleans(), share=st.integers(1, 16))
    def come(self, chips, share):
        total = self.node.instance_type.chips * (1 if chips else self.node.cores_per_chip)
        count = max(1, total // share)
        wanted = Demand(count, 0) if chips else Demand(0, count)
        before = self.picture()
        ids = place(before, wanted)
        self.count += 1
        uid = f"pod-{self.count:04}"
        if not isinstance(ids, Refusal):
            assert before.free(wanted).issuperset(ids)
            self.holdings[uid] = Holding(uid, uid, "n", wanted, ids, (uid, ""))
        return uid

    @rule(uid=consumes(pods))
    def go(self, uid):
        self.holdings.pop(uid, None)

    @invariant()
    def nothing_is_given_twice(self):
        if not hasattr(self, "node"):
            return
        per_chip = self.node.cores_per_chip
        given = [
            core
            for one in self.holdings.values()
            for number in one.ids
            for core in (range(number * per_chip, (number + 1) * per_chip) if one.demand.chips else [number])
        ]
        assert len(given) == len(set(given))
        assert all(0 <= core < self.node.instance_type.chips * per_chip for core in given)
        taken = self.picture()
        assert len(taken.chips) * per_chip + len(taken.cores) == len(given)

    @invariant()
    def every_set_is_contiguous(self):
        for one in getattr(self, "holdings", {}).values():
            assert list(one.ids) == list(range(one.ids[0], one.ids[0] + one.demand.count))


TestChurn = Churn.TestCase
TestChurn.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
