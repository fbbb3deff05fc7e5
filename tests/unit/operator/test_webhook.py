"""The webhook that adds the gate to pods of gangs: what it answers, over TLS, with the certificate of the day."""

import base64
import json
import ssl
import subprocess

import aiohttp
import pytest
from neuron_operator import webhook
from neuron_operator.gangs import names


def request(**spec):
    pod = {"metadata": {"labels": {names.LABEL_GANG: "ring"}}, "spec": {"containers": [], **spec}}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "of-the-request", "operation": "CREATE", "object": pod},
    }


def patch(answer):
    return json.loads(base64.b64decode(answer["response"]["patch"])) if "patch" in answer["response"] else None


@pytest.mark.parametrize("others", [[], [{"name": "kueue.x-k8s.io/admission"}]])
def test_a_pod_gets_the_gate_beside_those_of_others(others):
    answer = webhook.review(request(schedulingGates=others) if others else request())
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = answer["response"]
    assert (response["uid"], response["allowed"], response["patchType"]) == ("of-the-request", True, "JSONPatch")
    gates = [*others, {"name": names.GATE}]
    assert patch(answer) == [{"op": "add", "path": "/spec/schedulingGates", "value": gates}]


@pytest.mark.parametrize("spec", [{"schedulingGates": [{"name": names.GATE}]}, {"nodeName": "n1"}])
def test_a_pod_that_has_it_or_that_has_its_node_is_left_as_it_is(spec):
    answer = webhook.review(request(**spec))
    assert answer["response"]["allowed"]
    assert patch(answer) is None


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    arguments = ["-addext", "subjectAltName=DNS:localhost", "-keyout", "tls.key", "-out", "tls.crt"]
    subprocess.run([*command.split(), *arguments], cwd=folder, check=True, capture_output=True)
    return folder


async def test_it_answers_over_tls(certificates, unused_tcp_port):
    trusting = ssl.create_default_context(cafile=str(certificates / "tls.crt"))
    async with (
        webhook.serve(port=unused_tcp_port, certificates=certificates),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as client,
    ):
        async with client.post(f"https://localhost:{unused_tcp_port}{webhook.PATH}", json=request()) as response:
            assert patch(await response.json())
        async with client.post(f"https://localhost:{unused_tcp_port}{webhook.PATH}", json={"kind": "Pod"}) as response:
            assert response.status == 400


async def test_without_a_certificate_it_does_not_start(tmp_path):
    with pytest.raises(FileNotFoundError):
        async with webhook.serve(port=0, certificates=tmp_path):
            raise AssertionError("it serves")
