"""A driver behind real sockets, called by a fake kubelet."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from dra_fake_kubelet import FakeKubelet
from neuron_dra_driver.kubeletplugin import ClaimRef, KubeletPlugin, PreparedDevice, Registration
from neuron_dra_driver.kubeletplugin.sockets import MAX_PATH, SocketInUse, is_served

A = ClaimRef("default", "a", "uid-a")
B = ClaimRef("default", "b", "uid-b")
DEVICE = PreparedDevice(("req/sub",), "node-1", "device-3", ("example.com/claim=uid-a_req",), "share")


class Driver:
    """Answers what a test puts into it and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.answer: Callable[[ClaimRef], Any] = lambda claim: [DEVICE]
        self.before: Callable[[], Awaitable[None]] | None = None
        self.finished = 0

    async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, Any]:
        return await self._call("prepare", claims)

    async def unprepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, Any]:
        return await self._call("unprepare", claims)

    async def _call(self, name: str, claims: Sequence[ClaimRef]) -> Mapping[str, Any]:
        self.calls.append((name, tuple(claim.uid for claim in claims)))
        if self.before is not None:
            await self.before()
        self.finished += 1
        answers = {claim.uid: self.answer(claim) for claim in claims}
        return {uid: answer for uid, answer in answers.items() if answer != "left out"}


@pytest.fixture
def driver() -> Driver:
    return Driver()


def plugin(driver: Driver, host: Path, **options: Any) -> KubeletPlugin:
    return KubeletPlugin(
        driver,
        driver_name="example.com",
        plugins_dir=host / "plugins",
        registry_dir=host / "registry",
        **options,
    )


async def test_the_kubelet_is_told_the_v1_service_at_its_absolute_path(
    driver: Driver, host: Path, kubelet: FakeKubelet
) -> None:
    async with plugin(driver, host):
        await kubelet.pick_up()
        info = kubelet.only_plugin().info
        assert (info.type, info.name) == ("DRAPlugin", "example.com")
        assert info.endpoint == str(host / "plugins/example.com/dra.sock")
        assert list(info.supported_versions) == ["v1.DRAPlugin"]
        assert kubelet.record == ["register example.com-reg.sock"]


async def test_a_prepared_device_arrives_with_every_field(driver: Driver, host: Path, kubelet: FakeKubelet) -> None:
    async with plugin(driver, host):
        await kubelet.pick_up()
        response = await kubelet.only_plugin().prepare(A)
    (device,) = response.claims["uid-a"].devices
    assert list(device.request_names) == ["req"], "the kubelet knows a subrequest by its request"
    assert (device.pool_name, device.device_name) == ("node-1", "device-3")
    assert list(device.cdi_device_ids) == ["example.com/claim=uid-a_req"]
    assert device.share_id == "share"
    assert response.claims["uid-a"].error == ""


@pytest.mark.parametrize("method", ["NodePrepareResources", "NodeUnprepareResources"])
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ValueError("ask for fewer devices"), "ask for fewer devices"),
        (ValueError(), "ValueError"),
        (OSError("no file named \udcff"), "no file named \\udcff"),
        ("left out", "the driver gave no answer to"),
    ],
)
async def test_one_claims_failure_is_its_own(
    driver: Driver, host: Path, kubelet: FakeKubelet, method: str, answer: Any, text: str
) -> None:
    good: Any = [DEVICE] if method == "NodePrepareResources" else None
    driver.answer = lambda claim: answer if claim == A else good
    async with plugin(driver, host):
        await kubelet.pick_up()
        response = await kubelet.only_plugin().call(method, [A, B])
    assert text in response.claims["uid-a"].error
    assert response.claims["uid-b"].error == ""
    assert set(response.claims) == {"uid-a", "uid-b"}


@pytest.mark.parametrize("method", ["NodePrepareResources", "NodeUnprepareResources"])
async def test_an_exception_in_the_driver_becomes_the_error_of_every_claim(
    driver: Driver, host: Path, kubelet: FakeKubelet, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise OSError("disk full under /var/run/cdi")

    driver.before = fail
    async with plugin(driver, host):
        await kubelet.pick_up()
        response = await kubelet.only_plugin().call(method, [A, B])
    errors = {uid: claim.error for uid, claim in response.claims.items()}
    assert errors == dict.fromkeys(["uid-a", "uid-b"], "disk full under /var/run/cdi")
    refused = [record for record in caplog.records if "refused" in record.message]
    assert [record.__dict__["claim_uid"] for record in refused] == ["uid-a", "uid-b"]
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("rubbish", [None, 5, [object()]])
async def test_even_rubbish_becomes_an_error_text(
    driver: Driver, host: Path, kubelet: FakeKubelet, rubbish: Any
) -> None:
    driver.answer = lambda claim: rubbish
    async with plugin(driver, host):
        await kubelet.pick_up()
        response = await kubelet.only_plugin().prepare(A)
    assert response.claims["uid-a"].error


async def test_an_answer_that_nobody_asked_for_stays_out(
    driver: Driver, host: Path, kubelet: FakeKubelet, caplog: pytest.LogCaptureFixture
) -> None:
    class Talkative(Driver):
        async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, Any]:
            return {**await super().prepare(claims), "uid-z": [DEVICE]}

    async with plugin(Talkative(), host):
        await kubelet.pick_up()
        response = await kubelet.only_plugin().prepare(A)
    assert set(response.claims) == {"uid-a"}
    assert "not asked for" in caplog.text


async def test_no_claims_no_devices_and_unprepare_are_plain_answers(
    driver: Driver, host: Path, kubelet: FakeKubelet
) -> None:
    async with plugin(driver, host):
        await kubelet.pick_up()
        registered = kubelet.only_plugin()
        assert dict((await registered.prepare()).claims) == {}
        driver.answer = lambda claim: []
        empty = await registered.prepare(A)
        assert empty.claims["uid-a"].error == ""
        assert not empty.claims["uid-a"].devices
        driver.answer = lambda claim: None
        undone = await registered.unprepare(A, B)
        assert {uid: claim.error for uid, claim in undone.claims.items()} == {"uid-a": "", "uid-b": ""}


async def test_the_kubelets_verdict_is_state_callback_and_log(
    driver: Driver, host: Path, kubelet: FakeKubelet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    heard: list[Registration] = []
    async with plugin(driver, host, on_registration=heard.append) as served:
        assert served.registration is None
        kubelet.refuse = "two plugins with one endpoint"
        await kubelet.pick_up()
        assert served.registration == Registration(False, "two plugins with one endpoint")
        assert "two plugins with one endpoint" in caplog.text
        kubelet.refuse = ""
        await kubelet.pick_up()
        assert heard == [Registration(False, "two plugins with one endpoint"), Registration(True)]


async def test_a_failing_callback_does_not_undo_the_registration(
    driver: Driver, host: Path, kubelet: FakeKubelet
) -> None:
    def fail(_: Registration) -> None:
        raise RuntimeError("the callback's bug")

    async with plugin(driver, host, on_registration=fail) as served:
        await kubelet.pick_up()
        assert served.registration == Registration(True)


async def test_a_restarted_kubelet_finds_the_plugin_again(driver: Driver, host: Path, kubelet: FakeKubelet) -> None:
    async with plugin(driver, host):
        await kubelet.pick_up()
        await kubelet.restart()
        assert (await kubelet.only_plugin().prepare(A)).claims["uid-a"].devices
        assert kubelet.record == ["register example.com-reg.sock"] * 2


async def test_get_info_is_answered_while_the_driver_is_busy(driver: Driver, host: Path, kubelet: FakeKubelet) -> None:
    busy, release = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        busy.set()
        await release.wait()

    driver.before = hold
    async with plugin(driver, host):
        await kubelet.pick_up()
        call = kubelet.only_plugin().prepare(A)
        await busy.wait()
        other = FakeKubelet(host / "registry")
        await other.pick_up()
        assert other.record == ["register example.com-reg.sock"]
        await other.stop()
        release.set()
        assert (await call).claims["uid-a"].devices


async def test_the_service_is_there_before_the_kubelet_can_hear_of_it(driver: Driver, host: Path) -> None:
    async with plugin(driver, host) as served:
        assert served.service_socket.stat().st_ctime_ns <= served.registration_socket.stat().st_ctime_ns


async def test_stopping_unregisters_first_and_lets_calls_in_flight_end(
    driver: Driver, host: Path, kubelet: FakeKubelet
) -> None:
    busy, release = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        busy.set()
        await release.wait()

    driver.before = hold
    served = await plugin(driver, host).__aenter__()
    await kubelet.pick_up()
    call = kubelet.only_plugin().prepare(A)
    await busy.wait()
    stopping = asyncio.create_task(served.__aexit__(None, None, None))
    while served.registration_socket.exists():  # noqa: ASYNC110, a folder has no event
        await asyncio.sleep(0)
    assert not stopping.done()
    assert not call.done()
    release.set()
    assert (await call).claims["uid-a"].devices
    await stopping
    assert not served.service_socket.exists()
    await kubelet.pick_up()
    assert kubelet.record[-1] == "unregister example.com-reg.sock"


async def test_a_call_beyond_the_grace_is_ended_and_still_answered(
    driver: Driver, host: Path, kubelet: FakeKubelet
) -> None:
    busy = asyncio.Event()

    async def hang() -> None:
        busy.set()
        await asyncio.Event().wait()

    driver.before = hang
    async with plugin(driver, host, grace=0.0):
        await kubelet.pick_up()
        call = kubelet.only_plugin().prepare(A)
        await busy.wait()
    assert "stopped during prepare" in (await call).claims["uid-a"].error


async def test_a_kubelet_that_goes_away_does_not_cut_a_prepare(
    driver: Driver, host: Path, kubelet: FakeKubelet
) -> None:
    busy, release = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        busy.set()
        await release.wait()

    driver.before = hold
    async with plugin(driver, host):
        await kubelet.pick_up()
        call = kubelet.only_plugin().prepare(A)
        await busy.wait()
        busy.clear()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        again = kubelet.only_plugin().unprepare(A)
        other = kubelet.only_plugin().prepare(B)
        await busy.wait()
        assert driver.calls == [("prepare", ("uid-a",)), ("prepare", ("uid-b",))], "the same claim waits"
        driver.answer = lambda claim: None if claim == A else [DEVICE]
        release.set()
        assert (await again).claims["uid-a"].error == ""
        await other
        assert driver.calls[-1] == ("unprepare", ("uid-a",))
        assert driver.finished == 3


async def test_calls_for_different_claims_run_side_by_side(driver: Driver, host: Path, kubelet: FakeKubelet) -> None:
    both = asyncio.Barrier(2)
    driver.before = lambda: asyncio.wait_for(_meet(both), 5)
    async with plugin(driver, host):
        await kubelet.pick_up()
        registered = kubelet.only_plugin()
        first, second = registered.prepare(A), registered.prepare(B)
        assert (await first).claims["uid-a"].devices
        assert (await second).claims["uid-b"].devices


async def _meet(barrier: asyncio.Barrier) -> None:
    await barrier.wait()


async def test_two_processes_overlap_under_their_instances(driver: Driver, host: Path, kubelet: FakeKubelet) -> None:
    async with plugin(driver, host, instance="new"):
        async with plugin(Driver(), host, instance="old"):
            await kubelet.pick_up()
            assert len(kubelet.plugins) == 2
        await kubelet.pick_up()
        assert kubelet.record[-1] == "unregister example.com-old-reg.sock"
        assert (await kubelet.only_plugin().prepare(A)).claims["uid-a"].devices


async def test_a_living_process_keeps_its_sockets(driver: Driver, host: Path, kubelet: FakeKubelet) -> None:
    async with plugin(driver, host):
        with pytest.raises(SocketInUse, match="give each process an instance"):
            await plugin(Driver(), host).__aenter__()
        await kubelet.pick_up()
        assert (await kubelet.only_plugin().prepare(A)).claims["uid-a"].devices


async def test_a_start_that_fails_leaves_no_socket(driver: Driver, host: Path) -> None:
    (host / "registry/example.com-reg.sock").mkdir()
    with pytest.raises(OSError, match=r"example\.com-reg\.sock"):
        await plugin(driver, host).__aenter__()
    assert not list((host / "plugins/example.com").iterdir())


async def test_without_the_kubelets_folder_the_error_says_what_to_mount(driver: Driver, host: Path) -> None:
    (host / "registry").rmdir()
    with pytest.raises(FileNotFoundError, match="must be mounted"):
        await plugin(driver, host).__aenter__()


def listen_and_be_killed(*paths: Path) -> None:
    script = (
        "import os, signal, socket, sys\n"
        "for path in sys.argv[1:]:\n"
        "    s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen()\n"
        "    globals()[path] = s\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-S", "-E", "-c", script, *map(str, paths)], check=False)


async def test_what_a_killed_process_left_is_removed(driver: Driver, host: Path) -> None:
    (host / "plugins/example.com").mkdir()
    left = [host / "plugins/example.com/dra-dead.sock", host / "registry/example.com-dead-reg.sock"]
    foreign = host / "registry/other.example.com-reg.sock"
    listen_and_be_killed(*left, foreign)
    assert all(path.is_socket() for path in (*left, foreign))
    async with plugin(Driver(), host, instance="alive"), plugin(driver, host, instance="new"):
        assert not any(path.exists() for path in left)
        assert foreign.exists(), "another driver's sockets are its own business"
        assert {path.name for path in (host / "registry").iterdir()} == {
            "example.com-alive-reg.sock",
            "example.com-new-reg.sock",
            foreign.name,
        }


async def test_unknown_methods_are_refused_as_grpc_does(driver: Driver, host: Path, kubelet: FakeKubelet) -> None:
    async with plugin(driver, host):
        await kubelet.pick_up()
        unknown: Any = kubelet.only_plugin().channel.unary_unary("/v1.DRAPlugin/NodeDoNothing")
        with pytest.raises(grpc.aio.AioRpcError, match="Method not found"):
            await unknown(b"")


async def test_the_longest_path_that_a_socket_may_have_is_served(driver: Driver, host: Path) -> None:
    name = "d" * (MAX_PATH - len(str(host / "registry" / "-reg.sock")))
    long = KubeletPlugin(driver, driver_name=name, plugins_dir=host / "plugins", registry_dir=host / "registry")
    async with long:
        assert len(str(long.registration_socket)) == MAX_PATH
        assert is_served(long.registration_socket)
