"""An API server for ResourceSlices in memory, as faithful as publishing needs, with faults on demand."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable

from neuron_dra_driver.kubeletplugin import ApiError, SliceObject

BOOKMARK_EVERY = 60.0


class FakeServer:
    """Implements SliceClient. Calls take `latency`, events come `lag` after what they tell of (virtual time)."""

    def __init__(self) -> None:
        self.objects: dict[str, SliceObject] = {}
        self.calls: Counter[str] = Counter()
        self.selectors: set[str] = set()
        self.down = False
        self.lost_answers = 0
        """So many writes are done and then answered with an error."""
        self.refuse: ApiError | None = None
        """What writes are refused with."""
        self.dropped: set[str] = set()
        """Fields of devices that a feature gate takes out of writes."""
        self.strip_labels = False
        """A webhook takes all labels off."""
        self.latency = 0.005
        self.lag = 0.001
        self._version = 100
        self._compacted = 0
        self._events: list[tuple[int, float, str, SliceObject]] = []
        self._arrival = asyncio.Event()
        self._watch_epoch = 0
        self._silent_epoch = -1
        """Watches up to this one say nothing any more."""
        self._ended_epoch = -1
        self._ids = itertools.count(1)

    # SliceClient ---------------------------------------------------------------------------------

    async def list(self, *, field_selector: str) -> tuple[list[SliceObject], str]:
        await self._arrive("list")
        self.selectors.add(field_selector)
        items = [_copy(found) for found in self.objects.values()]
        for item in items:
            del item["apiVersion"], item["kind"]
        return items, str(self._version)

    async def watch(
        self, *, field_selector: str, resource_version: str
    ) -> AsyncGenerator[tuple[str, SliceObject], None]:
        await self._arrive("watch")
        if int(resource_version) < self._compacted:
            yield "ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"}
            return
        sent, epoch, clock = int(resource_version), self._watch_epoch, asyncio.get_running_loop().time
        self._watch_epoch += 1
        bookmark = clock() + BOOKMARK_EVERY
        while True:
            if self.down or epoch <= self._ended_epoch:
                return
            if epoch > self._silent_epoch:
                for version, when, kind, found in [event for event in self._events if event[0] > sent]:
                    await asyncio.sleep(max(0.0, when + self.lag - clock()))
                    sent = version
                    yield kind, _copy(found)
                if clock() >= bookmark:
                    bookmark = clock() + BOOKMARK_EVERY
                    yield "BOOKMARK", {"metadata": {"resourceVersion": str(sent)}}
                    continue
            arrival = self._arrival
            if any(event[0] > sent for event in self._events) and epoch > self._silent_epoch:
                continue
            try:
                async with asyncio.timeout_at(bookmark if epoch > self._silent_epoch else None):
                    await arrival.wait()
            except TimeoutError:
                pass

    async def create(self, body: SliceObject) -> SliceObject:
        await self._write("create")
        found = self._stored(body)
        metadata = found["metadata"]
        prefix = metadata["generateName"][:58]
        metadata["name"] = f"{prefix}{next(self._ids):05d}"
        metadata["uid"] = f"uid-{next(self._ids)}"
        metadata["managedFields"] = [{"manager": "agent"}]
        return self._answer(self._put("ADDED", found))

    async def replace(self, body: SliceObject) -> SliceObject:
        await self._write("replace")
        current = self.objects.get(body["metadata"]["name"])
        if current is None:
            raise ApiError(404, "not found")
        for field in ("uid", "resourceVersion"):
            if body["metadata"][field] != current["metadata"][field]:
                raise ApiError(409, "the object has been modified")
        assert body["spec"]["nodeName"] == current["spec"]["nodeName"], "immutable"
        assert body["spec"]["driver"] == current["spec"]["driver"], "immutable"
        found = self._stored(body)
        return self._answer(self._put("MODIFIED", found))

    async def delete(self, name: str, *, uid: str, resource_version: str) -> None:
        await self._write("delete")
        current = self.objects.get(name)
        if current is None:
            raise ApiError(404, "not found")
        if (uid, resource_version) != (current["metadata"]["uid"], current["metadata"]["resourceVersion"]):
            raise ApiError(409, "precondition failed")
        self.remove(name)
        self._answer({})

    # What others do ------------------------------------------------------------------------------

    def writes(self) -> int:
        return self.calls["create"] + self.calls["replace"] + self.calls["delete"]

    def remove(self, name: str) -> None:
        self._put("DELETED", self.objects.pop(name))

    def wipe(self) -> None:
        """What a kubelet does when it starts."""
        for name in list(self.objects):
            self.remove(name)

    def edit(self, name: str, change: Callable[[SliceObject], None]) -> None:
        found = _copy(self.objects[name])
        change(found)
        self._put("MODIFIED", found)

    def add(self, found: SliceObject) -> str:
        """Somebody else's slice; its name."""
        found = _copy(found)
        number = next(self._ids)
        found["metadata"].update(name=f"{found['metadata']['name'][:-5]}{number:05d}", uid=f"uid-{number}")
        self._put("ADDED", found)
        return str(found["metadata"]["name"])

    def outage(self) -> None:
        self.down = True
        self._wake()

    def compact(self) -> None:
        """Watches end, and none can be taken up where it was."""
        self._version += 1
        self._compacted = self._version
        self._events.clear()
        self.end_watches()

    def end_watches(self) -> None:
        self._ended_epoch = self._watch_epoch - 1
        self._wake()

    def silence_watches(self) -> None:
        self._silent_epoch = self._watch_epoch - 1
        self._wake()

    # ---------------------------------------------------------------------------------------------

    async def _arrive(self, call: str) -> None:
        self.calls[call] += 1
        await asyncio.sleep(self.latency)
        if self.down:
            raise ConnectionRefusedError("connection refused")

    async def _write(self, call: str) -> None:
        await self._arrive(call)
        if self.refuse is not None:
            raise self.refuse

    def _answer(self, found: SliceObject) -> SliceObject:
        if self.lost_answers:
            self.lost_answers -= 1
            raise TimeoutError("no answer")
        return _copy(found)

    def _stored(self, body: SliceObject) -> SliceObject:
        found = _copy(body)
        assert found["apiVersion"] == "resource.k8s.io/v1"
        assert found["kind"] == "ResourceSlice"
        spec = found["spec"]
        if self.strip_labels:
            del found["metadata"]["labels"]
        for key in ("devices", "sharedCounters"):
            if not spec.get(key, True):
                del spec[key]
        for device in spec.get("devices", []):
            for key in self.dropped:
                device.pop(key, None)
            for taint in device.get("taints", []):
                taint.setdefault("timeAdded", "2026-11-21T00:00:00Z")
            for capacity in device.get("capacity", {}).values():
                if capacity["value"] == "1024Mi":
                    capacity["value"] = "1Gi"
        return found

    def _put(self, kind: str, found: SliceObject) -> SliceObject:
        self._version += 1
        found = _copy(found)
        found["metadata"]["resourceVersion"] = str(self._version)
        if kind != "DELETED":
            self.objects[found["metadata"]["name"]] = found
        now = asyncio.get_running_loop().time()
        self._events.append((self._version, now, kind, _copy(found)))
        self._wake()
        return found

    def _wake(self) -> None:
        self._arrival.set()
        self._arrival = asyncio.Event()


def _copy(found: SliceObject) -> SliceObject:
    copy: SliceObject = json.loads(json.dumps(found))
    return copy
