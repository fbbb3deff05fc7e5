"""What a DRA driver implements and what it answers: the seam between this library and the driver.

The kubelet sends only the identity of claims. The driver reads the claims itself, makes the devices available
to the container runtime (CDI) and answers. Everything about sockets, gRPC and registration is this library's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class ClaimRef:
    """Which ResourceClaim. A claim deleted and made anew has the same name and another uid."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PreparedDevice:
    """One allocated device, and the CDI devices that bring it into a container.

    `requests` are names as in the allocation result; a `/subrequest` is cut off on the way to the kubelet.
    Empty: the device belongs to all requests of the claim. The first of `cdi_device_ids` should be this device's
    alone: the kubelet shows health under it, and of several devices with one id it shows the first.
    """

    requests: tuple[str, ...]
    pool: str
    device: str
    cdi_device_ids: tuple[str, ...]
    share_id: str | None = None


PrepareResult: TypeAlias = Sequence[PreparedDevice] | Exception
UnprepareResult: TypeAlias = Exception | None


class DRADriver(Protocol):
    """The driver's half. Obligations that both methods share:

    * An answer for every claim. What is missing, the library answers with an error; a uid that was not asked
      for is left out, since the kubelet would fail the whole pod over it.
    * A claim's failure is a value: an Exception in the mapping, whose text the user reads in the pod's event
      and which says what to change. A raised exception fails every claim of the call.
    * Idempotent. The kubelet repeats calls: after an error, after 45 s without an answer, after its restart.
    * Calls overlap, but never two that share a claim: those run in the order in which they came.
    * A call is not cancelled when the kubelet goes away in the middle of it, only when the plugin stops and
      its grace is over.
    """

    async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, PrepareResult]:
        """Make the devices of each claim usable by containers; claim uid → devices or why not.

        The claims are those of one pod. All or nothing for each: after an error nothing of the claim is left.
        An answer without devices is valid. The driver must read the claim from the API server and check that
        its uid is still the one asked for and that it is allocated, and is the last line of defence against
        one device in two claims. The same CDI device id must not be used for two claims: runtimes cache.
        """
        ...

    async def unprepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, UnprepareResult]:
        """Undo what `prepare` did; claim uid → None or why not.

        The claim object may be gone already, another process may have prepared it, and a claim that was never
        prepared is no error. After an error the kubelet keeps the pod terminating and tries again.
        """
        ...
