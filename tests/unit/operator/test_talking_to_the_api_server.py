"""What goes over the wire, told by an HTTP server that records it."""

import asyncio
import json
from contextlib import suppress

import pytest
from aiohttp import ClientSession, web
from neuron_operator import endpoints, kube, names
from neuron_operator.kube import ApiError, Conflict, NotFound

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: u, user: {{token: secret}}}}]
"""


class Server:
    """Answers in order, and remembers the requests."""

    def __init__(self):
        self.requests = []
        self.answers = []

    async def handle(self, request):
        text = await request.text()
        self.requests.append((request.method, request.path, dict(request.query), text and json.loads(text)))
        self.headers = request.headers
        status, body = self.answers.pop(0)
        return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))


@pytest.fixture
async def server():
    return Server()


@pytest.fixture
async def api(server, tmp_path):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    config = tmp_path / "kubeconfig"
    config.write_text(KUBECONFIG.format(port=runner.addresses[0][1]))
    async with kube.connect(str(config)) as api:
        yield api
    await runner.cleanup()


@pytest.fixture
async def proxied(api, tmp_path, monkeypatch):
    """Connects to a server that can only be reached by a proxy, which is the fake one."""
    port = (tmp_path / "kubeconfig").read_text().partition("127.0.0.1:")[2].partition('"')[0]
    config = tmp_path / "proxied"
    config.write_text(KUBECONFIG.format(port=1).replace("127.0.0.1", "127.0.0.2"))

    def connect(*, no_proxy):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", no_proxy)
        return kube.connect(str(config))

    return connect


async def test_lists_are_read_page_by_page(server, api):
    server.answers = [
        (200, {"metadata": {"resourceVersion": "7", "continue": "next"}, "items": [{"a": 1}]}),
        (200, {"metadata": {"resourceVersion": "7"}, "items": [{"a": 2}]}),
    ]
    listing = await api.list(kube.SLICES, labels="x!=true", fields="spec.driver=d")
    assert (listing.items, listing.version) == ([{"a": 1}, {"a": 2}], 7)
    (_, path, first, _), (_, _, second, _) = server.requests
    assert path == "/apis/resource.k8s.io/v1/resourceslices"
    assert first == {"limit": "500", "labelSelector": "x!=true", "fieldSelector": "spec.driver=d"}
    assert second == {**first, "continue": "next"}
    assert server.headers["Authorization"] == "Bearer secret"


async def test_a_request_takes_no_detour_over_a_thread(server, api, monkeypatch):
    """Each would cost more than the request itself while others are busy."""

    def detour(*_):
        raise AssertionError("a thread was asked")

    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", detour)
    server.answers = [(200, {"kind": "Node"})]
    assert await api.get(kube.NODES, "n") == {"kind": "Node"}


@pytest.mark.parametrize(("exempt", "way"), [("", "/api/v1/nodes/n"), ("127.0.0.2", None)])
async def test_the_proxy_of_the_environment_is_used(server, proxied, exempt, way):
    server.answers = [(200, {"kind": "Node"})]
    async with proxied(no_proxy=exempt) as api:
        with suppress(ApiError):  # without the proxy there is no such server
            await api.get(kube.NODES, "n")
    assert [path for _, path, *_ in server.requests] == ([way] if way else [])


async def test_an_apply_names_its_manager_and_does_not_force(server, api):
    server.answers = [(200, {"kind": "Node"})]
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "u"}}
    assert await api.apply(kube.NODES, body, force=False) == {"kind": "Node"}
    assert server.requests == [
        ("PATCH", "/api/v1/nodes/n", {"fieldManager": names.FIELD_MANAGER, "force": "false"}, body)
    ]
    assert server.headers["Content-Type"] == "application/apply-patch+yaml"


async def test_a_status_is_merged_through_its_subresource(server, api):
    server.answers = [(200, {})]
    await api.merge_status(kube.POOLS, "p", {"nodes": 1})
    ((method, path, _, body),) = server.requests
    assert (method, path) == ("PATCH", "/apis/neuron-sim.dev/v1alpha1/neuronnodepools/p/status")
    assert body == {"status": {"nodes": 1}}
    assert server.headers["Content-Type"] == "application/merge-patch+json"


async def test_a_deletion_names_the_uid_that_it_means(server, api):
    server.answers = [(200, {})]
    await api.delete(kube.NEURON_NODES, "n", uid="u")
    ((method, path, _, body),) = server.requests
    assert (method, path) == ("DELETE", "/apis/neuron-sim.dev/v1alpha1/neuronnodes/n")
    assert body["preconditions"] == {"uid": "u"}


async def test_namespaced_objects_go_to_their_namespace(server, api):
    server.answers = [(201, {}), (200, {}), (200, {})]
    lease = {"metadata": {"name": "l", "namespace": "ns"}}
    await api.create(kube.LEASES, lease)
    await api.get(kube.LEASES, "l", namespace="ns")
    await api.replace(kube.LEASES, lease)
    base = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
    assert [(method, path) for method, path, _, _ in server.requests] == [
        ("POST", base), ("GET", f"{base}/l"), ("PUT", f"{base}/l")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFound), (409, Conflict), (403, ApiError), (422, ApiError), (500, ApiError)]
)
async def test_refusals_keep_the_api_servers_words(server, api, status, kind):
    server.answers = [(status, {"reason": "Because", "message": "that is why"})]
    with pytest.raises(kind, match="Because: that is why") as caught:
        await api.get(kube.NODES, "n")
    assert caught.value.status == status


async def test_a_proxys_own_words_are_kept_too(server, api):
    server.answers = [(404, "<html>no such page</html>")]
    with pytest.raises(NotFound, match="no such page"):
        await api.get(kube.NODES, "n")


async def test_an_api_server_that_is_not_there_is_an_error_like_any_other(tmp_path, unused_tcp_port):
    config = tmp_path / "kubeconfig"
    config.write_text(KUBECONFIG.format(port=unused_tcp_port))
    async with kube.connect(str(config)) as api:
        with pytest.raises(ApiError, match="API server") as caught:
            await api.get(kube.NODES, "n")
    assert caught.value.status == 0


async def test_health_and_metrics_are_answered_each_on_its_port(unused_tcp_port_factory):
    health, metrics = unused_tcp_port_factory(), unused_tcp_port_factory()
    async with endpoints.serve(health_port=health, metrics_port=metrics), ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{health}/healthz") as answer:
            assert answer.status == 200
        async with session.get(f"http://127.0.0.1:{metrics}/metrics") as answer:
            assert "\nneuron_sim_operator_leader " in await answer.text()
