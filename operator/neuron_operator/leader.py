"""Leader election: of several replicas one acts, and the others wait.

kopf has none (its peering freezes all replicas of equal priority), and the election of the client package
compares wall clocks of different machines and never lets go of its Lease. This is the algorithm of Go's
client: a Lease names its holder and is renewed every two seconds. Who waits watches, by its own clock, how long
the Lease has not changed, and takes over after its duration; the resource version decides between two that
try at once. A holder that could not renew for ten seconds must assume that it is none any more: it raises
``LeadershipLost`` and the process ends, five seconds before anybody else can start.

A pod's name is unique for all time, so the new container of a pod takes its predecessor's Lease at once.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from neuron_operator import kube
from neuron_operator.kube import Api, ApiError, NotFound

Json = dict[str, Any]

logger = logging.getLogger(__name__)


class LeadershipLost(Exception):
    """The Lease could not be renewed, or somebody else holds it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; the defaults are those of Kubernetes' own controllers."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


class LeaderElection:
    """One candidate for one Lease."""

    def __init__(
        self,
        api: Api,
        *,
        name: str,
        namespace: str,
        identity: str,
        timing: Timing | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._timing = timing or Timing()
        self._clock = clock
        self._lease: Json | None = None
        self._seen_at = 0.0
        self._renewed_at = 0.0

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        waiting_for = None
        while True:
            try:
                holder = await self._try()
            except ApiError as error:
                logger.warning("Lease %s/%s not acquired yet: %s", self._namespace, self._name, error)
            else:
                if holder is None:
                    logger.info("leading as %s", self._identity)
                    return
                if holder != waiting_for:
                    waiting_for = holder
                    logger.info("waiting for the Lease %s/%s, held by %s", self._namespace, self._name, holder)
            await asyncio.sleep(self._timing.retry)

    async def keep(self) -> NoReturn:
        """Renew the Lease until that fails for too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._timing.retry)
            deadline = self._renewed_at + self._timing.renew_deadline
            try:
                async with asyncio.timeout_at(deadline):
                    holder = await self._try()
                if holder is not None:
                    raise LeadershipLost(f"Lease {self._namespace}/{self._name} was taken by {holder}")
            except (ApiError, TimeoutError) as error:
                if loop.time() + self._timing.retry > deadline:
                    raise LeadershipLost(
                        f"Lease {self._namespace}/{self._name} not renewed for {self._timing.renew_deadline:g} s:"
                        f" {error!r}"
                    ) from error
                logger.warning("Lease %s/%s not renewed yet: %s", self._namespace, self._name, error)

    async def release(self) -> None:
        """Let the next one have the Lease at once; to be called when nothing is written any more."""
        spec = (self._lease or {}).get("spec") or {}
        if self._lease is None or spec.get("holderIdentity") != self._identity:
            return
        spec = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            await self._api.replace(kube.LEASES, {**self._lease, "spec": spec})
        except ApiError as error:
            logger.warning("Lease %s/%s not released: %s", self._namespace, self._name, error)
        self._lease = None

    async def _try(self) -> str | None:
        """Take or renew the Lease; None if it is ours now, else its holder."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            lease = await self._api.get(kube.LEASES, self._name, namespace=self._namespace)
        except NotFound:
            lease = None
        if lease is not None:
            if self._lease is None or _version(lease) != _version(self._lease):
                self._lease, self._seen_at = lease, started
            spec = lease.get("spec") or {}  # a chart may have made it, empty
            holder = spec.get("holderIdentity") or ""
            duration = spec.get("leaseDurationSeconds") or self._timing.duration
            if holder not in ("", self._identity) and started < self._seen_at + duration:
                return str(holder)
        wished = self._wished(lease)
        if lease is None:
            self._lease = await self._api.create(kube.LEASES, wished)
        else:
            self._lease = await self._api.replace(kube.LEASES, wished)
        self._seen_at = self._renewed_at = started
        return None

    def _wished(self, lease: Json | None) -> Json:
        now = self._clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = (lease or {}).get("spec") or {}
        renewal = old.get("holderIdentity") == self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": lease["metadata"] if lease else {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(self._timing.duration),
                "acquireTime": old.get("acquireTime", now) if renewal else now,
                "renewTime": now,
                "leaseTransitions": old.get("leaseTransitions", 0) + (0 if renewal or not old else 1),
            },
        }


def _version(lease: Json) -> str:
    return str(lease["metadata"]["resourceVersion"])
