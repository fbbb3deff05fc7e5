"""What the EFA driver gives for a claim, refuses, and leaves behind: nothing."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from neuron_dra_driver.efa.driver import EfaDriver
from neuron_dra_driver.errors import AgentError, NodeError
from neuron_dra_driver.kubeletplugin import ClaimRef
from neuron_dra_driver.names import EFA_DRIVER_NAME
from neuron_dra_driver.prepared.cdi import CdiFolder

NODE = "worker-1"
FIRST, LAST = "pci-0000-56-00-0", "pci-0000-f6-00-0"
"""Of a trn2.48xlarge."""


def result(device, *, request="efa", driver=EFA_DRIVER_NAME, pool=NODE, **more):
    return {"request": request, "driver": driver, "pool": pool, "device": device, **more}


def ref(claim):
    metadata = claim["metadata"]
    return ClaimRef(metadata["namespace"], metadata["name"], metadata["uid"])


class Claims:
    """The API server's."""

    def __init__(self):
        self.known = {}
        self.away = False

    async def read(self, namespace, name):
        if self.away:
            raise OSError("connection refused")
        return self.known.get((namespace, name))

    def put(self, claim):
        self.known[claim["metadata"]["namespace"], claim["metadata"]["name"]] = claim
        return claim


@pytest.fixture
def setup(tmp_path, trn2, make):
    claims, changes = Claims(), []
    folder = tmp_path / "cdi"
    state = SimpleNamespace(node=trn2)

    async def node():
        if isinstance(state.node, Exception):
            raise state.node
        return state.node

    def driver(read=claims.read):
        return EfaDriver(
            pool=NODE,
            read_claim=read,
            cdi=CdiFolder(folder, driver=EFA_DRIVER_NAME),
            node=node,
            changed=lambda: changes.append(True),
        )

    def put(*results, name="mine", uid=""):
        return claims.put(make.claim(name, uid=uid, results=list(results)))

    def files():
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def content(claim):
        return json.loads((folder / f"{EFA_DRIVER_NAME}-claim_{claim['metadata']['uid']}.json").read_text())

    return SimpleNamespace(
        claims=claims, folder=folder, state=state, driver=driver, put=put, files=files, content=content, changes=changes
    )


async def prepare(setup, claim, driver=None):
    return (await (driver or setup.driver()).prepare([ref(claim)]))[claim["metadata"]["uid"]]


async def test_a_container_gets_the_verbs_devices_of_its_cards(setup):
    claim = setup.put(result(FIRST), result(LAST))
    answer = await prepare(setup, claim)
    assert [(d.requests, d.pool, d.device) for d in answer] == [(("efa",), NODE, FIRST), (("efa",), NODE, LAST)]
    spec = setup.content(claim)
    given = {
        f"{spec['kind']}={device['name']}": [node["path"] for node in device["containerEdits"]["deviceNodes"]]
        for device in spec["devices"]
    }
    assert [given[one] for device in answer for one in device.cdi_device_ids] == [
        ["/dev/infiniband/uverbs0", "/dev/infiniband/rdma_cm"],
        ["/dev/infiniband/uverbs15", "/dev/infiniband/rdma_cm"],
    ]
    nodes = [node for device in spec["devices"] for node in device["containerEdits"]["deviceNodes"]]
    assert all((node["type"], node["major"], node["minor"]) == ("c", 1, 3) for node in nodes)


async def test_devices_of_other_drivers_and_pools_are_not_its_own(setup):
    chip = result("neuron-device-0", request="neurons", driver="neuron.aws.com")
    claim = setup.put(chip, result(FIRST), result(LAST, pool="worker-2"))
    assert [device.device for device in await prepare(setup, claim)] == [FIRST]
    assert len(setup.content(claim)["devices"]) == 1


async def test_prepare_again_after_a_restart_is_the_same(setup):
    claim = setup.put(result(FIRST))
    first, written = await prepare(setup, claim), setup.content(claim)
    assert await prepare(setup, claim, setup.driver()) == first
    assert setup.content(claim) == written


async def test_what_is_prepared_is_known_also_after_a_restart(setup):
    claim = setup.put(result(FIRST))
    before = setup.driver()
    assert not before.prepared()
    await prepare(setup, claim, before)
    (serial,) = [entry.serial for entry in before.prepared()]
    await prepare(setup, claim, before)
    assert [entry.serial for entry in before.prepared()] != [serial], "that it was prepared again shows"
    after = setup.driver()
    (entry,) = after.prepared()
    assert (str(entry), entry.uid) == ("team/mine", "uid-of-mine")
    assert [(held.request, held.pool, held.device) for held in entry.devices] == [("efa", NODE, FIRST)]
    await after.unprepare([ref(claim)])
    assert not after.prepared()


async def test_card_in_two_requests_is_one_cdi_device(setup):
    claim = setup.put(result(FIRST, adminAccess=True), result(FIRST, request="watch", adminAccess=True))
    answer = await prepare(setup, claim)
    assert [device.requests for device in answer] == [("efa",), ("watch",)]
    assert len(setup.content(claim)["devices"]) == 1


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ([result("pci-0000-00-00-0"), result(FIRST)], "pci-0000-00-00-0, which node worker-1 does not have"),
        ([result(FIRST, pool="worker-2")], "none in worker-1"),
        ([], "none in worker-1"),
    ],
)
async def test_what_is_not_here_is_refused_whole(setup, results, says):
    refused = await prepare(setup, setup.put(*results))
    assert says in str(refused)
    assert setup.files() == []


async def test_claim_that_is_gone_or_made_anew_is_refused(setup):
    claim = setup.put(result(FIRST))
    setup.put(result(FIRST), uid="another")
    assert "made anew" in str(await prepare(setup, claim))
    setup.claims.known.clear()
    assert "does not exist any more" in str(await prepare(setup, claim))
    assert setup.files() == []


async def test_every_claim_of_a_call_has_its_own_answer(setup):
    good, bad = setup.put(result(FIRST)), setup.put(result("nothing"), name="bad")
    answers = await setup.driver().prepare([ref(good), ref(bad)])
    assert [device.device for device in answers["uid-of-mine"]] == [FIRST]
    assert isinstance(answers["uid-of-bad"], AgentError)


async def test_a_node_that_offers_nothing_says_why(setup):
    setup.state.node = NodeError("Gone", "no Neuron node any more")
    assert await prepare(setup, setup.put(result(FIRST))) is setup.state.node


async def test_api_server_that_is_away_is_tried_again(setup):
    claim = setup.put(result(FIRST))
    setup.claims.away = True
    assert "the kubelet tries again" in str(await prepare(setup, claim))
    assert setup.files() == []


async def test_disk_that_cannot_be_written_is_named(setup):
    setup.folder.write_text("a file where the folder should be")
    assert str(setup.folder) in str(await prepare(setup, setup.put(result(FIRST))))


async def test_unprepare_needs_no_claim_and_can_be_repeated(setup):
    claim = setup.put(result(FIRST))
    await prepare(setup, claim)
    setup.claims.away = True
    setup.state.node = NodeError("Gone", "no Neuron node any more")
    for _ in range(2):
        assert await setup.driver().unprepare([ref(claim)]) == {"uid-of-mine": None}
        assert setup.files() == []
    assert setup.changes


async def test_reconcile_removes_what_no_claim_stands_behind(setup):
    names = ("stays", "deallocated", "gone", "anew")
    claims = {name: setup.put(result(FIRST), name=name) for name in names}
    driver = setup.driver()
    for claim in claims.values():
        await prepare(setup, claim, driver)
    (setup.folder / f"{EFA_DRIVER_NAME}-claim_killed.json.tmp").write_text("{")
    (setup.folder / "neuron.aws.com-claim_uid-of-gone.json").write_text("{}")
    setup.claims.known.pop(("team", "gone"))
    setup.put(result(FIRST), name="anew", uid="another")
    claims["deallocated"]["status"] = {}
    await setup.driver().reconcile()
    assert setup.files() == [
        f"{EFA_DRIVER_NAME}-claim_uid-of-deallocated.json",
        f"{EFA_DRIVER_NAME}-claim_uid-of-stays.json",
        "neuron.aws.com-claim_uid-of-gone.json",
    ]


async def test_reconcile_spares_a_claim_that_is_allocated_again_while_it_asks(setup):
    """Its answer is from before the allocation, and the kubelet's prepare comes between."""
    claim = setup.put(result(FIRST))
    driver = setup.driver()
    await prepare(setup, claim, driver)
    asked, answered = asyncio.Event(), asyncio.Event()
    read = setup.claims.read

    async def slowly(namespace, name):
        found = {**await read(namespace, name), "status": {}}
        asked.set()
        await answered.wait()
        return found

    late = setup.driver(slowly)
    reconciling = asyncio.create_task(late.reconcile())
    await asked.wait()
    await prepare(setup, claim, driver)
    answered.set()
    await reconciling
    assert setup.files() == [f"{EFA_DRIVER_NAME}-claim_uid-of-mine.json"]


async def test_reconcile_leaves_everything_while_the_api_server_is_away(setup):
    await prepare(setup, setup.put(result(FIRST)))
    before = setup.files()
    setup.claims.known.clear()
    setup.claims.away = True
    with pytest.raises(OSError, match="refused"):
        await setup.driver().reconcile()
    assert setup.files() == before
