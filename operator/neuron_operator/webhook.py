"""The webhook that adds the gate to pods of gangs, where the API server has no MutatingAdmissionPolicy (before 1.36).

Every replica answers, the leader or not, from the request alone. Which requests come is the chart's doing
(MutatingWebhookConfiguration): pods with the label of a gang and no others, so while no operator answers nobody else's
pods are held up. The certificate is the chart's, too, and is read again as it is renewed.

kopf has webhooks, and is not used for this: it serves them on the leader only, with a new certificate at each start,
which the operator would need the right to write into its own MutatingWebhookConfiguration.
"""

import asyncio
import base64
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from neuron_operator.gangs import names

PATH = "/gate"
_READ_AGAIN = 60.0

logger = logging.getLogger(__name__)


def review(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to an AdmissionReview (admission.k8s.io/v1) of a pod that is to be created: allowed, with the gate.

    A pod that has its node already has passed the scheduler by, and is left as it is. Raises KeyError or TypeError if
    this is no such request.
    """
    asked = request["request"]
    spec = asked["object"]["spec"]
    gates = spec.get("schedulingGates") or []
    response: dict[str, Any] = {"uid": asked["uid"], "allowed": True}
    if not spec.get("nodeName") and names.GATE not in [gate["name"] for gate in gates]:
        patch = [{"op": "add", "path": "/spec/schedulingGates", "value": [*gates, {"name": names.GATE}]}]
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


async def _answer(request: web.Request) -> web.Response:
    try:
        return web.json_response(review(await request.json()))
    except (ValueError, KeyError, TypeError):
        return web.Response(status=400, text="this is no AdmissionReview of a pod\n")


@contextlib.asynccontextmanager
async def serve(*, port: int, certificates: Path) -> AsyncIterator[None]:
    """Answer over TLS on all addresses while the block runs, with tls.crt and tls.key of a folder."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _read(tls, certificates)
    app = web.Application()
    app.router.add_post(PATH, _answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    reading = asyncio.create_task(_read_again(tls, certificates))
    try:
        await web.TCPSite(runner, port=port, ssl_context=tls).start()
        yield
    finally:
        reading.cancel()
        await runner.cleanup()


def _read(tls: ssl.SSLContext, certificates: Path) -> None:
    tls.load_cert_chain(certificates / "tls.crt", certificates / "tls.key")


async def _read_again(tls: ssl.SSLContext, certificates: Path) -> None:
    while True:
        await asyncio.sleep(_READ_AGAIN)
        try:
            _read(tls, certificates)
        except (OSError, ssl.SSLError) as error:
            logger.warning("the webhook's certificate cannot be read again, the one before stays: %s", error)
