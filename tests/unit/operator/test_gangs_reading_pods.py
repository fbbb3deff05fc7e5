"""What a pod says of its gang, where it may run, what it needs; the patch that lets it go, and the pod made anew."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_operator.gangs import capacity, names, pods
from neuron_operator.gangs.demand import Needs, needs, references
from neuron_operator.gangs.eligibility import may_run
from neuron_operator.gangs.pods import Terms
from neuron_operator.node_affinity import required, selects


def terms(*, topology=None, **annotations):
    labels = {names.LABEL_GANG: "train", names.LABEL_SIZE: "4"}
    return pods.terms(labels | ({names.TOPOLOGY: topology} if topology else {}), annotations)


def test_a_gang_is_of_one_ultraserver_and_has_five_minutes_if_it_says_nothing():
    assert terms() == Terms(4, "ultraserver", 300)


def test_topology_is_a_label_or_an_annotation():
    assert terms(topology="network-2").level == "network-2"
    assert terms(**{names.TOPOLOGY: "node"}).level == "node"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("2h", 7200)])
def test_a_timeout_is_written_as_in_kubernetes(text, seconds):
    assert terms(**{names.ANNOTATION_TIMEOUT: text}).timeout == seconds


@pytest.mark.parametrize(
    ("labels", "annotations", "said"),
    [
        ({names.LABEL_GANG: "train"}, {}, "gang-size is missing"),
        ({names.LABEL_GANG: "train", names.LABEL_SIZE: "0"}, {}, '"0" is no size'),
        ({names.LABEL_GANG: "train", names.LABEL_SIZE: "-1"}, {}, '"-1" is no size'),
        ({names.LABEL_GANG: "train", names.LABEL_SIZE: "²"}, {}, '"²" is no size'),
        ({names.LABEL_GANG: "Train", names.LABEL_SIZE: "4"}, {}, "lower-case letters"),
        ({names.LABEL_GANG: "", names.LABEL_SIZE: "4"}, {}, "names no gang"),
        ({names.LABEL_GANG: "a", names.LABEL_SIZE: "4"}, {names.TOPOLOGY: "rack"}, "use one of node, row"),
        ({names.LABEL_GANG: "a", names.LABEL_SIZE: "4"}, {names.ANNOTATION_TIMEOUT: "soon"}, "90s, 5m or 1h30m"),
        ({names.LABEL_GANG: "a", names.LABEL_SIZE: "4"}, {names.ANNOTATION_TIMEOUT: ""}, "is no time"),
        ({names.LABEL_GANG: "a", names.LABEL_SIZE: "4"}, {names.ANNOTATION_TIMEOUT: "0s"}, "is no time"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(labels, annotations, said):
    assert said in pods.terms(labels, annotations)


@given(st.dictionaries(st.sampled_from([names.LABEL_GANG, names.LABEL_SIZE, names.TOPOLOGY]), st.text(max_size=5)))
def test_no_label_is_an_error_of_ours(labels):
    assert isinstance(pods.terms(labels, {}), Terms | str)


def pod(**spec):
    labels = {names.LABEL_GANG: "train", names.LABEL_SIZE: "4"}
    metadata = {"namespace": "ns", "name": "train-0", "uid": "u", "labels": labels, "annotations": {"kept": "yes"}}
    spec = {"containers": [{"name": "c", "image": "i"}], "schedulingGates": [{"name": names.GATE}], **spec}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}


def let_go(before, *, node="n1"):
    """A pod after the patch, as the API server merges it."""
    merged = {**before, "metadata": {**before["metadata"]}, "spec": {**before["spec"]}}
    return merge(merged, pods.patch(pods.member(before), node=node, reservation="r-1"))


def merge(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def test_a_pod_that_was_let_go_says_by_which_reservation_and_where():
    member = pods.member(let_go(pod()))
    assert (member.reservation, member.place, member.placed, member.gated) == ("r-1", "n1", True, False)


@pytest.mark.parametrize(
    ("labels", "annotations", "index"),
    [
        ({}, {}, None),
        ({"apps.kubernetes.io/pod-index": "3"}, {}, 3),
        ({"batch.kubernetes.io/job-completion-index": "1", "apps.kubernetes.io/pod-index": "x"}, {}, 1),
        # a JobSet of two Jobs of two pods each
        (
            {
                "batch.kubernetes.io/job-completion-index": "1",
                "jobset.sigs.k8s.io/job-index": "1",
                "jobset.sigs.k8s.io/replicatedjob-replicas": "2",
            },
            {},
            3,
        ),
        # two groups of two pods
        (
            {"leaderworkerset.sigs.k8s.io/worker-index": "0", "leaderworkerset.sigs.k8s.io/group-index": "1"},
            {"leaderworkerset.sigs.k8s.io/size": "2"},
            2,
        ),
        # the gang is less than all of its Jobs: their pods keep their own numbers
        (
            {
                "batch.kubernetes.io/job-completion-index": "3",
                "jobset.sigs.k8s.io/job-index": "1",
                "jobset.sigs.k8s.io/replicatedjob-replicas": "2",
            },
            {},
            3,
        ),
    ],
)
def test_pods_are_numbered_through_the_parts_of_their_workload(labels, annotations, index):
    found = pod()
    found["metadata"]["labels"] |= labels
    found["metadata"]["annotations"] |= annotations
    assert pods.member(found).index == index


def test_tolerations_of_its_own_stay():
    own = {"key": "aws.amazon.com/neuron", "operator": "Exists"}
    assert let_go(pod(tolerations=[own]))["spec"]["tolerations"] == [own, pods.TOLERATION]


EXPRESSION = {"key": "zone", "operator": "In", "values": ["a"]}
FIELD = {"key": "metadata.name", "operator": "In", "values": ["n1"]}
PREFERRED = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"matchExpressions": []}}]}


def affinity(*terms, **more):
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}, **more}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"nodeSelector": {"zone": "a"}},
        {"affinity": affinity({"matchExpressions": [EXPRESSION]})},
        {"affinity": affinity({"matchExpressions": [EXPRESSION]}, {"matchFields": [FIELD]}, {})},
        {"affinity": affinity({"matchExpressions": [EXPRESSION]}, podAffinity={"required": []})},
        {"affinity": {"nodeAffinity": PREFERRED}},
        {"affinity": {"podAffinity": {"required": []}}},
    ],
)
def test_a_bare_pod_comes_again_as_it_was(spec):
    before = pod(**spec)
    again = pods.anew(let_go(before))
    assert {**again["spec"], "tolerations": None} == {**json.loads(json.dumps(before["spec"])), "tolerations": None}
    assert again["metadata"]["annotations"] == {"kept": "yes"}
    assert "uid" not in again["metadata"]
    assert pods.member({**again, "metadata": again["metadata"] | {"uid": "v"}}).gated


@pytest.mark.parametrize(
    ("own", "labels", "able"),
    [
        ((), {}, True),
        (({"matchExpressions": [EXPRESSION]},), {"zone": "a"}, True),
        (({"matchExpressions": [EXPRESSION]},), {"zone": "b"}, False),
        (({"matchExpressions": [EXPRESSION]}, {"matchFields": [FIELD]}), {"zone": "b"}, True),
        (({"matchExpressions": [EXPRESSION]}, {}), {"zone": "b"}, False),
    ],
)
def test_a_pod_that_was_let_go_may_run_on_its_place_alone_and_there_only_if_it_may_at_all(own, labels, able):
    spec = let_go(pod(**({"affinity": affinity(*own)} if own else {})))["spec"]
    assert selects(required(spec), name="n1", labels=labels) is able
    assert not selects(required(spec), name="n2", labels=labels)


def test_a_pod_with_a_controller_is_not_bare():
    owned = pod()
    assert pods.member(owned).bare
    owned["metadata"]["ownerReferences"] = [{"kind": "JobSet", "controller": True}]
    assert not pods.member(owned).bare


def test_the_wish_of_a_pod_weighs_little():
    heavy = pod(containers=[{"name": "c", "image": "i", "env": [{"name": "A", "value": "x" * 10000}], "args": ["y"]}])
    assert pods.member(heavy).wish.spec == {"containers": [{}]}


LABELS = {"zone": "a", "size": "16"}


class TestWhereItMayRun:
    def runs(self, taints=(), **spec):
        return may_run(spec, name="n1", labels=LABELS, taints=taints)

    def test_selectors(self):
        assert self.runs()
        assert self.runs(nodeSelector={"zone": "a"})
        assert not self.runs(nodeSelector={"zone": "b"})

    @pytest.mark.parametrize(
        ("expression", "runs"),
        [
            ({"key": "zone", "operator": "In", "values": ["a", "b"]}, True),
            ({"key": "zone", "operator": "NotIn", "values": ["a"]}, False),
            ({"key": "gpu", "operator": "NotIn", "values": ["a"]}, True),
            ({"key": "zone", "operator": "Exists"}, True),
            ({"key": "gpu", "operator": "DoesNotExist"}, True),
            ({"key": "size", "operator": "Gt", "values": ["8"]}, True),
            ({"key": "size", "operator": "Lt", "values": ["8"]}, False),
            ({"key": "zone", "operator": "Gt", "values": ["8"]}, False),
        ],
    )
    def test_required_affinity(self, expression, runs):
        assert self.runs(affinity=affinity({"matchExpressions": [expression]})) is runs

    def test_one_of_several_terms_is_enough_and_an_empty_one_is_none(self):
        elsewhere = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}
        here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
        assert self.runs(affinity=affinity(elsewhere, here))
        assert not self.runs(affinity=affinity(elsewhere, {}))

    @pytest.mark.parametrize(
        ("toleration", "runs"),
        [
            ({"operator": "Exists"}, True),
            ({"key": "k", "operator": "Exists"}, True),
            ({"key": "k", "value": "v"}, True),
            ({"key": "k", "operator": "Equal", "value": "w"}, False),
            ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
            ({"key": "other", "operator": "Exists"}, False),
        ],
    )
    def test_tolerations(self, toleration, runs):
        assert self.runs(taints=[("k", "v", "NoSchedule")], tolerations=[toleration]) is runs

    def test_a_preference_and_our_own_reservation_keep_nobody_away(self):
        assert self.runs(taints=[("k", "v", "PreferNoSchedule"), (names.TAINT, "other", "NoSchedule")])


def affinity(*terms):
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


class TestWhatItNeeds:
    def needs(self, claims=(), **requests):
        spec = {
            "containers": [{"resources": {"requests": requests}}],
            "resourceClaims": [{"name": str(n), "resourceClaimTemplateName": str(n)} for n in range(len(claims))],
        }
        assert len(references(spec)) == len(claims)
        found = {str(n): {"requests": [request]} for n, request in enumerate(claims)}
        return needs(spec, lookup=lambda name, _: found[name], driver_name="neuron.aws.com", cores_per_chip=4)

    def test_plain_resources(self):
        assert self.needs() == Needs(0)
        assert self.needs(**{"aws.amazon.com/neuron": "4"}) == Needs(4)
        assert self.needs(**{"aws.amazon.com/neuroncore": "5"}) == Needs(2), "cores count as whole chips"

    @pytest.mark.parametrize(
        ("request_", "expected"),
        [
            ({"exactly": {"deviceClassName": "neuron.aws.com", "count": 4}}, Needs(4)),
            ({"exactly": {"deviceClassName": "neuron.aws.com"}}, Needs(1)),
            ({"exactly": {"deviceClassName": "neuron.aws.com", "allocationMode": "All"}}, Needs(0, whole_node=True)),
            ({"exactly": {"deviceClassName": "neuroncore.neuron-sim.dev", "count": 8}}, Needs(2)),
            ({"exactly": {"deviceClassName": "gpu.example.com", "count": 8}}, Needs(0)),
            ({"exactly": {"deviceClassName": "neuron.aws.com", "adminAccess": True}}, Needs(0)),
            ({"firstAvailable": [{"deviceClassName": "neuron.aws.com", "count": 2}, {"count": 1}]}, Needs(2)),
        ],
    )
    def test_claims(self, request_, expected):
        assert self.needs([request_]) == expected

    def test_a_whole_node_by_a_selector(self):
        selector = {"cel": {"expression": 'device.attributes["neuron.aws.com"].resourceType == "neuron_node"'}}
        found = self.needs([{"exactly": {"deviceClassName": "neuron.aws.com", "selectors": [selector]}}])
        assert found == Needs(0, whole_node=True)

    def test_claims_and_plain_resources_add_up(self):
        claims = [{"exactly": {"deviceClassName": "neuron.aws.com", "count": 3}}] * 2
        assert self.needs(claims, **{"aws.amazon.com/neuron": "1"}) == Needs(7)

    def test_cards_are_no_chips_but_a_wish_for_the_network(self):
        claims = [{"exactly": {"deviceClassName": name}} for name in ("neuron.aws.com", "efa.networking.k8s.aws")]
        assert self.needs(claims) == Needs(1, efa=True)


class TestWhatANodeIs:
    @pytest.mark.parametrize(
        ("instance_type", "faults", "cut_off"),
        [
            ("trn2.48xlarge", [{}], True),
            ("trn2.48xlarge", [{"efa": 3}], False),
            ("trn2.48xlarge", [{"efa": number} for number in range(16)], True),
            ("trn2.48xlarge", [{"effect": "None"}], False),
            ("trn2.48xlarge", [], False),
            ("inf2.48xlarge", [{}], False),
        ],
        ids=["all", "one", "one by one", "shown only", "none", "no card"],
    )
    def test_it_is_cut_off_without_cards_that_work(self, instance_type, faults, cut_off):
        down = [{"name": "x", "type": "EFADown", "effect": "NoSchedule", "since": "", **fault} for fault in faults]
        spec = {"instanceType": instance_type, "logicalNeuronCore": 1, "faults": down}
        found = capacity.hardware({"metadata": {"name": "n"}, "spec": spec})
        assert found.cut_off == cut_off
        assert len(found.healthy) == found.instance_type.chips
