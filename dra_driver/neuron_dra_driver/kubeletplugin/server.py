"""The kubelet's DRA calls in front of a driver: every claim of a call gets an answer.

A gRPC error, a claim left out and a claim too many all fail the whole pod with a message that helps nobody,
so whatever the driver does becomes one text per claim, which the kubelet shows in the pod's event.

A call runs in a task of its own: the kubelet cancels calls when it restarts or loses patience, and a
prepare cut in the middle would be one more state to recover from. Its next try of the same claim waits for
that task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import grpc

from .api import ClaimRef, DRADriver, PreparedDevice
from .proto import dra_v1_pb2 as pb

SERVICE = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
SERVICE_VERSION = "v1.DRAPlugin"
"""The service's name in the kubelet's registration, which is not its name in gRPC."""

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", pb.NodePrepareResourceResponse, pb.NodeUnprepareResourceResponse)


class DRAService:
    """NodePrepareResources and NodeUnprepareResources on behalf of one driver."""

    def __init__(self, driver: DRADriver) -> None:
        self._driver = driver
        self._running: set[asyncio.Task[Any]] = set()
        self._latest: dict[str, asyncio.Task[Any]] = {}
        """By claim uid, the call that came last; the next one for the claim waits for it."""

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server has to be given to serve this."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "NodePrepareResources": grpc.unary_unary_rpc_method_handler(
                    self._prepare,
                    request_deserializer=pb.NodePrepareResourcesRequest.FromString,
                    response_serializer=pb.NodePrepareResourcesResponse.SerializeToString,
                ),
                "NodeUnprepareResources": grpc.unary_unary_rpc_method_handler(
                    self._unprepare,
                    request_deserializer=pb.NodeUnprepareResourcesRequest.FromString,
                    response_serializer=pb.NodeUnprepareResourcesResponse.SerializeToString,
                ),
            },
        )

    async def drain(self, grace: float) -> None:
        """Let the calls in flight end; cancel what is not done after `grace` seconds."""
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _prepare(
        self, request: pb.NodePrepareResourcesRequest, context: object
    ) -> pb.NodePrepareResourcesResponse:
        async def call(claims: Sequence[ClaimRef]) -> dict[str, pb.NodePrepareResourceResponse | Exception]:
            given = await self._driver.prepare(claims)
            return {
                uid: result
                if isinstance(result, Exception)
                else pb.NodePrepareResourceResponse(devices=[_device_message(device) for device in result])
                for uid, result in given.items()
            }

        answers = await self._ask("prepare", call, request.claims, pb.NodePrepareResourceResponse)
        return pb.NodePrepareResourcesResponse(claims=answers)

    async def _unprepare(
        self, request: pb.NodeUnprepareResourcesRequest, context: object
    ) -> pb.NodeUnprepareResourcesResponse:
        async def call(claims: Sequence[ClaimRef]) -> dict[str, pb.NodeUnprepareResourceResponse | Exception]:
            given = await self._driver.unprepare(claims)
            return {
                uid: pb.NodeUnprepareResourceResponse() if result is None else result for uid, result in given.items()
            }

        answers = await self._ask("unprepare", call, request.claims, pb.NodeUnprepareResourceResponse)
        return pb.NodeUnprepareResourcesResponse(claims=answers)

    async def _ask(
        self,
        operation: str,
        call: Callable[[Sequence[ClaimRef]], Awaitable[Mapping[str, Answer | Exception]]],
        asked: Iterable[pb.Claim],
        answer_type: type[Answer],
    ) -> dict[str, Answer]:
        claims = {claim.uid: ClaimRef(claim.namespace, claim.name, claim.uid) for claim in asked}
        earlier = {self._latest[uid] for uid in claims if uid in self._latest}

        async def run() -> dict[str, Answer]:
            given: Mapping[str, Answer | Exception]
            try:
                if earlier:
                    await asyncio.wait(earlier)
                given = await call(tuple(claims.values()))
            except Exception as error:
                log.exception("%s failed", operation, extra={"operation": operation, "claim_uids": list(claims)})
                given = dict.fromkeys(claims, error)
            except asyncio.CancelledError:
                stopped = RuntimeError(f"the driver stopped during {operation}; it is tried again")
                given = dict.fromkeys(claims, stopped)
            return _one_for_each(operation, claims, given, answer_type)

        task = asyncio.create_task(run())
        self._running.add(task)
        self._latest.update(dict.fromkeys(claims, task))
        task.add_done_callback(lambda _: self._forget(task, claims))
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any], uids: Iterable[str]) -> None:
        self._running.discard(task)
        for uid in uids:
            if self._latest.get(uid) is task:
                del self._latest[uid]


def _one_for_each(
    operation: str,
    claims: Mapping[str, ClaimRef],
    given: Mapping[str, Answer | Exception],
    answer_type: type[Answer],
) -> dict[str, Answer]:
    """Exactly one message for each claim that was asked for, errors as their text."""
    for uid in given.keys() - claims.keys():
        log.error("%s answered for a claim that was not asked for", operation, extra={"claim_uid": uid})
    answers: dict[str, Answer] = {}
    for uid, claim in claims.items():
        answer = given.get(uid)
        if answer is None:
            answer = RuntimeError(f"the driver gave no answer to {operation}")
        if isinstance(answer, Exception):
            text = error_text(answer)
            fields = {"operation": operation, "claim": str(claim), "claim_uid": uid}
            log.warning("%s of claim %s refused: %s", operation, claim, text, extra=fields)
            answer = answer_type(error=text)
        answers[uid] = answer
    return answers


def error_text(error: Exception) -> str:
    """What the user reads: never empty, because that means success, and always valid UTF-8 for protobuf."""
    return (str(error) or type(error).__name__).encode("utf-8", "backslashreplace").decode()


def _device_message(device: PreparedDevice) -> pb.Device:
    return pb.Device(
        # The kubelet compares with the names in the claim's spec: a subrequest is known by its request.
        request_names=[request.partition("/")[0] for request in device.requests],
        pool_name=device.pool,
        device_name=device.device,
        cdi_device_ids=device.cdi_device_ids,
        share_id=device.share_id,
    )
