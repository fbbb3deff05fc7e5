"""Follows all claims and pods of the cluster, for what runs on virtual nodes.

A pod cannot be asked for by the kind of its node, so all that are bound pass by, as they do in KWOK.
"""

import logging
from collections.abc import Callable

from ..api_server.kube import CLAIMS, Kube
from .listing import Object, listed, watch
from .workloads import Workloads

PODS = "/api/v1/pods"
_BOUND = {"fieldSelector": "spec.nodeName!="}

log = logging.getLogger(__name__)


class WorkloadsApi:
    """Tells `workloads` what there is."""

    def __init__(self, kube: Kube, workloads: Workloads) -> None:
        self._kube = kube
        self._workloads = workloads
        self._strange: set[str] = set()

    async def follow_claims(self) -> None:
        """From a list on, for as long as the watch lasts."""
        workloads = self._workloads
        await self._follow(CLAIMS, {}, workloads.claim, workloads.claim_is_gone, workloads.claims_are)

    async def follow_pods(self) -> None:
        """From a list on, for as long as the watch lasts."""
        workloads = self._workloads
        await self._follow(PODS, _BOUND, self._pod, workloads.pod_is_gone, workloads.pods_are)

    async def _follow(
        self,
        path: str,
        params: dict[str, str],
        take: Callable[[Object], None],
        forget: Callable[[str], None],
        are: Callable[[list[str]], None],
    ) -> None:
        def read(item: Object) -> str:
            take(item)
            return str(item["metadata"]["uid"])

        uids, version = await listed(self._kube, path, params=params, read=read)
        are(uids)

        def changed(kind: str, item: Object) -> None:
            if kind == "DELETED":
                forget(item["metadata"]["uid"])
            else:
                take(item)

        await watch(self._kube, path, version, changed, params=params)

    def _pod(self, pod: Object) -> None:
        sentence = self._workloads.pod(pod)
        if sentence and sentence not in self._strange:
            self._strange.add(sentence)
            log.warning("%s", sentence)
