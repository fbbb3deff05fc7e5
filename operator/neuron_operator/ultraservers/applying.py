"""Carrying out a plan. A write that fails does not stop the others; what remains is in the next plan.

Two orders are kept. A workload is let go only when all of its pods were asked to go. And Events come before the
statuses that make them unnecessary (``conditions`` explains it).
"""

from contextlib import suppress

from neuron_operator import kube
from neuron_operator.applying import each
from neuron_operator.fleet import Fleet
from neuron_operator.kept import Kept
from neuron_operator.kube import Api, Conflict, NotFound
from neuron_operator.ultraservers.claims import Pod
from neuron_operator.ultraservers.planning import Finalizers, Named, Plan, Status


async def apply(plan: Plan, *, api: Api, fleet: Fleet, slices: Kept[kube.Json], asked: set[str]) -> int:
    """Write what the plan names; returns how many writes failed. Pods that were asked to go are added to `asked`."""
    writer = _Writer(api, fleet, slices, asked)
    unsent = await each(plan.events, writer.send, "Event", "create")
    failed = await each(plan.pods, writer.delete_pod, "Pod", "delete")
    if not failed:
        failed += await each(plan.removals, writer.set_finalizers, "NeuronUltraServerWorkload", "patch")
    failed += await each(plan.additions, writer.set_finalizers, "NeuronUltraServerWorkload", "patch")
    failed += await each(plan.template_deletions, writer.delete_template, "ResourceClaimTemplate", "delete")
    failed += await each(plan.templates, writer.create_template, "ResourceClaimTemplate", "create")
    failed += await each(plan.table_deletions, writer.delete_table, "NeuronUltraServer", "delete")
    failed += await each(plan.tables, writer.apply_table, "NeuronUltraServer", "apply")
    failed += await each(plan.slices.deletions, writer.delete_slice, "ResourceSlice", "delete")
    failed += await each(plan.slices.writes, writer.write_slice, "ResourceSlice", "write")
    # without its Event a status change would go untold for ever
    if unsent == 0:
        failed += await each(plan.statuses, writer.write_status, "NeuronUltraServerWorkload", "patch")
        failed += await each(plan.table_statuses, writer.write_table_status, "NeuronUltraServer", "patch")
    return failed + unsent


class _Writer:
    def __init__(self, api: Api, fleet: Fleet, slices: Kept[kube.Json], asked: set[str]) -> None:
        self._api = api
        self._fleet = fleet
        self._slices = slices
        self._asked = asked

    async def send(self, event: kube.Json) -> None:
        with suppress(Conflict):  # sent before
            await self._api.create(kube.EVENTS, event)

    async def delete_pod(self, pod: Pod) -> None:
        # a conflict (of another pod by that name, usually) is tried again while the claim is there
        with suppress(NotFound):
            await self._api.delete(kube.PODS, pod.name, namespace=pod.namespace, uid=pod.uid)
        self._asked.add(pod.uid)

    async def set_finalizers(self, change: Finalizers) -> None:
        body: kube.Json = {"metadata": {"finalizers": list(change.finalizers), "resourceVersion": change.version}}
        with suppress(NotFound):
            item = await self._api.merge(kube.ULTRASERVER_WORKLOADS, change.name, body, namespace=change.namespace)
            self._fleet.workloads.observe(item)

    async def write_status(self, change: Status) -> None:
        # of the version that was judged: a workload that was deleted or edited meanwhile is judged again
        with suppress(NotFound):
            item = await self._api.merge_status(
                kube.ULTRASERVER_WORKLOADS,
                change.name,
                change.status,
                namespace=change.namespace,
                version=change.version,
            )
            self._fleet.workloads.observe(item)

    async def create_template(self, body: kube.Json) -> None:
        # one that is there meanwhile is looked at in the next pass
        with suppress(Conflict):
            await self._api.create(kube.CLAIM_TEMPLATES, body)

    async def delete_template(self, item: Named) -> None:
        with suppress(NotFound):
            await self._api.delete(kube.CLAIM_TEMPLATES, item.name, namespace=item.namespace, uid=item.uid)

    async def apply_table(self, body: kube.Json) -> None:
        self._fleet.ultraservers.observe(await self._api.apply(kube.ULTRASERVERS, body, force=True))

    async def delete_table(self, item: Named) -> None:
        with suppress(NotFound):
            await self._api.delete(kube.ULTRASERVERS, item.name, namespace=item.namespace, uid=item.uid)
        self._fleet.ultraservers.forget(f"{item.namespace}/{item.name}")

    async def write_table_status(self, change: Status) -> None:
        with suppress(NotFound):
            item = await self._api.merge_status(
                kube.ULTRASERVERS, change.name, change.status, namespace=change.namespace, version=change.version
            )
            self._fleet.ultraservers.observe(item)

    async def write_slice(self, body: kube.Json) -> None:
        write = self._api.replace if "resourceVersion" in body["metadata"] else self._api.create
        # one that somebody changed, made or deleted meanwhile is looked at in the next pass
        with suppress(Conflict, NotFound):
            self._slices.seen(await write(kube.SLICES, body), False)

    async def delete_slice(self, item: kube.Json) -> None:
        metadata = item["metadata"]
        with suppress(NotFound):
            await self._api.delete(kube.SLICES, metadata["name"], uid=metadata["uid"])
        self._slices.gone(metadata["name"])
