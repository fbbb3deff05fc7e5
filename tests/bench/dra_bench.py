#!/usr/bin/env python3
"""Measure a Kubernetes DRA node driver from the outside (see README.md).

Sub-commands:
  grpc    talk to the driver's DRA socket as a kubelet would: latency, rate, CPU, memory, start-up
  pod     whole path on a real node: pod creation -> Ready, with and without a claim
  table   print one or more result files as a Markdown table

Knows nothing of any particular driver: each driver is a "target" (a JSON object).
Needs Python 3.11, grpcio, protobuf, PyYAML and admin rights on a test cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import datetime
import http.client
import json
import math
import os
import platform
import re
import shlex
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import google.protobuf
import grpc
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

HARNESS_VERSION = 2
LABEL = "dra-bench/run"
KUBELET_CALL_DEADLINE_S = 45.0
RESOURCE_API = "/apis/resource.k8s.io/v1"
RETRY_REASONS = {"FailedPrepareDynamicResources", "FailedCreatePodSandBox", "Failed", "FailedMount"}


# --------------------------------------------------------------------------- gRPC messages
# Built in code so that no generated file is needed. "k8s.io.kubelet.pkg.apis.dra.v1" and
# "pluginregistration" are the packages that the kubelet speaks.

_F = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _F.TYPE_STRING, "bool": _F.TYPE_BOOL}


def _build_messages() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()

    def add_file(
        name: str, package: str, messages: dict[str, list[tuple[int, str, str, str]]], maps: dict[tuple[str, str], str]
    ) -> list[str]:
        proto = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
        for message_name, fields in messages.items():
            message = proto.message_type.add(name=message_name)
            for number, field_name, kind, label in fields:
                item = message.field.add(name=field_name, number=number)
                item.label = _F.LABEL_REPEATED if label == "repeated" else _F.LABEL_OPTIONAL
                value_type = maps.get((message_name, field_name))
                if value_type:
                    entry_name = "".join(p.capitalize() for p in field_name.split("_")) + "Entry"
                    entry = message.nested_type.add(name=entry_name)
                    entry.options.map_entry = True
                    entry.field.add(name="key", number=1, type=_F.TYPE_STRING, label=_F.LABEL_OPTIONAL)
                    entry.field.add(
                        name="value",
                        number=2,
                        type=_F.TYPE_MESSAGE,
                        label=_F.LABEL_OPTIONAL,
                        type_name=f".{package}.{value_type}",
                    )
                    item.type, item.type_name = _F.TYPE_MESSAGE, f".{package}.{message_name}.{entry_name}"
                elif kind in _SCALARS:
                    item.type = _SCALARS[kind]
                else:
                    item.type, item.type_name = _F.TYPE_MESSAGE, f".{package}.{kind}"
        pool.Add(proto)
        return [f"{package}.{m}" for m in messages]

    names = add_file(
        "bench_dra_v1.proto",
        "k8s.io.kubelet.pkg.apis.dra.v1",
        {
            "Claim": [(1, "namespace", "string", ""), (2, "uid", "string", ""), (3, "name", "string", "")],
            "Device": [
                (1, "request_names", "string", "repeated"),
                (2, "pool_name", "string", ""),
                (3, "device_name", "string", ""),
                (4, "cdi_device_ids", "string", "repeated"),
            ],
            "NodePrepareResourceResponse": [(1, "devices", "Device", "repeated"), (2, "error", "string", "")],
            "NodeUnprepareResourceResponse": [(1, "error", "string", "")],
            "NodePrepareResourcesRequest": [(1, "claims", "Claim", "repeated")],
            "NodePrepareResourcesResponse": [(1, "claims", "", "repeated")],
            "NodeUnprepareResourcesRequest": [(1, "claims", "Claim", "repeated")],
            "NodeUnprepareResourcesResponse": [(1, "claims", "", "repeated")],
        },
        {
            ("NodePrepareResourcesResponse", "claims"): "NodePrepareResourceResponse",
            ("NodeUnprepareResourcesResponse", "claims"): "NodeUnprepareResourceResponse",
        },
    )
    names += add_file(
        "bench_registration_v1.proto",
        "pluginregistration",
        {
            "InfoRequest": [],
            "RegistrationStatus": [(1, "plugin_registered", "bool", ""), (2, "error", "string", "")],
            "RegistrationStatusResponse": [],
            "PluginInfo": [
                (1, "type", "string", ""),
                (2, "name", "string", ""),
                (3, "endpoint", "string", ""),
                (4, "supported_versions", "string", "repeated"),
            ],
        },
        {},
    )
    return {n.rsplit(".", 1)[1]: message_factory.GetMessageClass(pool.FindMessageTypeByName(n)) for n in names}


PB = _build_messages()


class DraClient:
    """One HTTP/2 connection to the DRA socket, as the kubelet keeps."""

    def __init__(self, path: str) -> None:
        self.channel = grpc.aio.insecure_channel("unix://" + os.path.abspath(path))
        base = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/"
        self._prepare = self.channel.unary_unary(
            base + "NodePrepareResources",
            request_serializer=PB["NodePrepareResourcesRequest"].SerializeToString,
            response_deserializer=PB["NodePrepareResourcesResponse"].FromString,
        )
        self._unprepare = self.channel.unary_unary(
            base + "NodeUnprepareResources",
            request_serializer=PB["NodeUnprepareResourcesRequest"].SerializeToString,
            response_deserializer=PB["NodeUnprepareResourcesResponse"].FromString,
        )

    @staticmethod
    def _check(claims: list[dict], answered: Any, want_devices: bool) -> str | None:
        for claim in claims:
            if claim["uid"] not in answered:
                return f"claim {claim['uid']} is missing in the answer"
            one = answered[claim["uid"]]
            if one.error:
                return one.error
            if want_devices and len(one.devices) != claim["devices"]:
                return f"{len(one.devices)} devices answered, {claim['devices']} allocated"
            if want_devices and not any(d.cdi_device_ids for d in one.devices):
                return "no CDI device id in the answer"
        return None

    @staticmethod
    def _message(claims: list[dict]) -> list[Any]:
        return [PB["Claim"](namespace=c["namespace"], uid=c["uid"], name=c["name"]) for c in claims]

    async def prepare(self, claims: list[dict]) -> str | None:
        request = PB["NodePrepareResourcesRequest"](claims=self._message(claims))
        answer = await self._prepare(request, timeout=KUBELET_CALL_DEADLINE_S)
        return self._check(claims, answer.claims, True)

    async def unprepare(self, claims: list[dict]) -> str | None:
        request = PB["NodeUnprepareResourcesRequest"](claims=self._message(claims))
        answer = await self._unprepare(request, timeout=KUBELET_CALL_DEADLINE_S)
        return self._check(claims, answer.claims, False)

    async def close(self) -> None:
        await self.channel.close()


async def register(path: str) -> dict[str, Any]:
    """What a kubelet asks, and tells, when it has found a registration socket."""
    async with grpc.aio.insecure_channel("unix://" + os.path.abspath(path)) as channel:
        call = channel.unary_unary(
            "/pluginregistration.Registration/GetInfo",
            request_serializer=PB["InfoRequest"].SerializeToString,
            response_deserializer=PB["PluginInfo"].FromString,
        )
        info = await call(PB["InfoRequest"](), timeout=5)
        notify = channel.unary_unary(
            "/pluginregistration.Registration/NotifyRegistrationStatus",
            request_serializer=PB["RegistrationStatus"].SerializeToString,
            response_deserializer=PB["RegistrationStatusResponse"].FromString,
        )
        await notify(PB["RegistrationStatus"](plugin_registered=True), timeout=5)
        return {
            "type": info.type,
            "name": info.name,
            "endpoint": info.endpoint,
            "supported_versions": list(info.supported_versions),
        }


# --------------------------------------------------------------------------- Kubernetes API


class ApiError(RuntimeError):
    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"HTTP {status}: {body[:400]}")
        self.status = status


class Kube:
    """Small JSON client; one keep-alive connection per thread."""

    def __init__(self, kubeconfig: str) -> None:
        with open(kubeconfig, encoding="utf-8") as handle:
            config = yaml.safe_load(handle)
        context = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
        cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"])
        user = next(u["user"] for u in config["users"] if u["name"] == context["user"])
        base = os.path.dirname(os.path.abspath(kubeconfig))
        url = urllib.parse.urlsplit(cluster["server"])
        self.host, self.port = url.hostname or "localhost", url.port or 443
        self.headers = {"Accept": "application/json"}
        if "token" in user:
            self.headers["Authorization"] = "Bearer " + user["token"]
        self.tls = ssl.create_default_context()
        with tempfile.TemporaryDirectory(prefix="dra-bench-") as folder:

            def material(source: dict, key: str) -> str | None:
                if key + "-data" in source:
                    path = os.path.join(folder, key)
                    with open(path, "wb") as out:
                        out.write(base64.b64decode(source[key + "-data"]))
                    return path
                return os.path.join(base, source[key]) if key in source else None

            authority = material(cluster, "certificate-authority")
            if cluster.get("insecure-skip-tls-verify"):
                self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
            elif authority:
                self.tls.load_verify_locations(authority)
            certificate, key = material(user, "client-certificate"), material(user, "client-key")
            if certificate:
                self.tls.load_cert_chain(certificate, key)
        self._local = threading.local()

    def _connection(self, timeout: float = 60) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, self.port, context=self.tls, timeout=timeout)

    def call(
        self, method: str, path: str, body: Any = None, raw: bool = False, content_type: str = "application/json"
    ) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = dict(self.headers) | ({"Content-Type": content_type} if data else {})
        for attempt in (0, 1):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = self._connection()
                connection.connect()
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                connection.request(method, path, body=data, headers=headers)
                response = connection.getresponse()
                content = response.read()
                break
            except (http.client.HTTPException, OSError):
                connection.close()
                self._local.connection = None
                if attempt:
                    raise
        if response.status >= 300:
            raise ApiError(response.status, content.decode(errors="replace"))
        return content.decode(errors="replace") if raw else json.loads(content)

    def list(self, path: str, **query: str) -> dict:
        return self.call("GET", path + ("?" + urllib.parse.urlencode(query) if query else ""))


class Watch(threading.Thread):
    """List + watch; hands (event type, object, receive time) to `sink` until stopped."""

    def __init__(self, kube: Kube, path: str, sink: Callable[[str, dict, float], None], **query: str) -> None:
        super().__init__(daemon=True)
        self.kube, self.path, self.sink, self.query = kube, path, sink, query
        self.stopped = threading.Event()
        self.version = kube.list(path, **query)["metadata"]["resourceVersion"]

    def run(self) -> None:
        while not self.stopped.is_set():
            query = urllib.parse.urlencode({**self.query, "watch": "1", "resourceVersion": self.version})
            connection = self.kube._connection(timeout=2)
            try:
                connection.request("GET", f"{self.path}?{query}", headers=self.kube.headers)
                response = connection.getresponse()
                while not self.stopped.is_set():
                    try:
                        line = response.readline()
                    except TimeoutError:
                        break
                    now = time.perf_counter()
                    if not line:
                        break
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        self.version = self.kube.list(self.path, **self.query)["metadata"]["resourceVersion"]
                        break
                    self.version = event["object"]["metadata"]["resourceVersion"]
                    self.sink(event["type"], event["object"], now)
            except (http.client.HTTPException, OSError):
                time.sleep(0.05)
            finally:
                connection.close()

    def stop(self) -> None:
        self.stopped.set()


# --------------------------------------------------------------------------- statistics


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    position = (len(ordered) - 1) * q
    low, high = math.floor(position), math.ceil(position)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def summary(seconds: list[float], scale: float = 1000.0, digits: int = 3) -> dict[str, float]:
    if not seconds:
        return {"n": 0}
    values = [s * scale for s in seconds]
    out = {
        "n": len(values),
        "p50": quantile(values, 0.5),
        "p90": quantile(values, 0.9),
        "p99": quantile(values, 0.99),
        "max": max(values),
        "mean": statistics.fmean(values),
    }
    return {k: round(v, digits) if k != "n" else v for k, v in out.items()}


def aggregate(items: list[Any]) -> Any:
    """Merge equal-shaped results of repetitions: every number becomes median/min/max."""
    items = [i for i in items if i is not None]
    if not items:
        return None
    if all(isinstance(i, dict) for i in items):
        keys = list(items[0]) + [k for i in items[1:] for k in i if k not in items[0]]
        return {k: aggregate([i.get(k) for i in items]) for k in dict.fromkeys(keys)}
    if all(isinstance(i, (int, float)) and not isinstance(i, bool) for i in items):
        return {"median": round(statistics.median(items), 3), "min": round(min(items), 3), "max": round(max(items), 3)}
    return items[-1]


# --------------------------------------------------------------------------- process figures


def _descendants(roots: Iterable[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as handle:
                    parent = int(handle.read().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, todo = [], list(roots)
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User + system time of the processes, with that of their children already reaped."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as handle:
                ticks += sum(int(x) for x in handle.read().rsplit(")", 1)[1].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pids: list[int]) -> dict[str, int]:
    total = {"rss_kib": 0, "hwm_kib": 0, "rss_anon_kib": 0, "pss_kib": 0, "threads": 0, "processes": len(pids)}
    names = {"VmRSS": "rss_kib", "VmHWM": "hwm_kib", "RssAnon": "rss_anon_kib", "Threads": "threads"}
    for pid in pids:
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as handle:
                for line in handle:
                    key, _, value = line.partition(":")
                    if key in names:
                        total[names[key]] += int(value.split()[0])
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as handle:
                total["pss_kib"] += next((int(x.split()[1]) for x in handle if x.startswith("Pss:")), 0)
    return total


# --------------------------------------------------------------------------- noise indicators


def spin_ms() -> float:
    """A fixed amount of Python work; it grows when the machine is busy."""
    start = time.perf_counter()
    total = 0
    for i in range(1_000_000):
        total += i & 7
    return round((time.perf_counter() - start) * 1000, 2)


def fsync_ms(folder: str, count: int = 30) -> dict[str, float]:
    """Cost of what a durable checkpoint needs: write 4 KiB, fsync, rename."""
    taken = []
    with tempfile.TemporaryDirectory(prefix=".dra-bench-", dir=folder) as scratch:
        for i in range(count):
            start = time.perf_counter()
            path = os.path.join(scratch, f"t{i}")
            with open(path, "wb") as handle:
                handle.write(b"x" * 4096)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(path, os.path.join(scratch, "final"))
            taken.append(time.perf_counter() - start)
    return summary(taken)


def noise(folder: str | None) -> dict[str, Any]:
    out: dict[str, Any] = {"load1": os.getloadavg()[0], "spin_ms": spin_ms()}
    if folder and os.path.isdir(folder):
        out["fsync_ms"] = fsync_ms(folder)
    return out


# --------------------------------------------------------------------------- targets


def expand(pattern: str) -> list[str]:
    """'gpu-{0..3},x' -> gpu-0 gpu-1 gpu-2 gpu-3 x"""
    out: list[str] = []
    for part in filter(None, (p.strip() for p in pattern.split(","))):
        match = re.search(r"\{(\d+)\.\.(\d+)\}", part)
        if not match:
            out.append(part)
            continue
        for number in range(int(match[1]), int(match[2]) + 1):
            out += expand(part[: match.start()] + str(number) + part[match.end() :])
    return out


@dataclass
class Target:
    label: str
    driver: str
    pool: str
    device_class: str
    devices: list[str]
    dra_socket: str = ""
    reg_socket: str = ""
    pid: int = 0
    start_cmd: str = ""
    log: str = ""
    cdi_dir: str = ""
    verify_env: str = ""
    version: str = ""
    notes: str = ""
    claims: int = 0  # 0: what the command line says
    rounds: int = 0
    devices_per_claim: int = 1
    admin_access: bool = False  # more claims than devices, for a driver that refuses to give one twice
    process: subprocess.Popen | None = field(default=None, repr=False)

    @classmethod
    def load(cls, text: str) -> Target:
        if text.startswith("@"):
            with open(text[1:], encoding="utf-8") as handle:
                text = handle.read()
        data = json.loads(os.path.expandvars(text))
        if isinstance(data["devices"], str):
            data["devices"] = expand(data["devices"])
        data.setdefault("device_class", data["driver"])
        data.setdefault("label", data["driver"])
        return cls(**data)

    def pids(self) -> list[int]:
        root = self.process.pid if self.process else self.pid
        return _descendants([root]) if root else []

    def describe(self) -> dict[str, Any]:
        return {
            k: getattr(self, k)
            for k in (
                "label",
                "driver",
                "pool",
                "device_class",
                "version",
                "notes",
                "devices_per_claim",
                "admin_access",
            )
        } | {"devices": len(self.devices)}


def connectable(path: str) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(path)
            return True
        except OSError:
            return False


def driver_slices(kube: Kube, target: Target) -> list[dict]:
    items = kube.list(RESOURCE_API + "/resourceslices", fieldSelector="spec.driver=" + target.driver)["items"]
    return [s for s in items if s["spec"]["pool"]["name"] == target.pool]


def start_target(kube: Kube, target: Target, timeout: float) -> dict[str, Any]:
    """Start the driver with none of its slices published and time what becomes visible."""
    for item in driver_slices(kube, target):
        kube.call("DELETE", f"{RESOURCE_API}/resourceslices/{item['metadata']['name']}")
    seen: dict[str, float] = {}
    slices: dict[str, dict] = {}
    complete = threading.Event()

    def sink(kind: str, item: dict, now: float) -> None:
        if item["spec"]["pool"]["name"] != target.pool:
            return
        slices.pop(item["metadata"]["name"], None)
        if kind == "DELETED":
            return
        slices[item["metadata"]["name"]] = item
        seen.setdefault("first_slice", now)
        newest = max(s["spec"]["pool"].get("generation", 0) for s in slices.values())
        current = [s for s in slices.values() if s["spec"]["pool"].get("generation", 0) == newest]
        names = {d["name"] for s in current for d in s["spec"].get("devices", [])}
        if len(current) == item["spec"]["pool"]["resourceSliceCount"] and names.issuperset(target.devices):
            seen.setdefault("all_slices", now)
            complete.set()

    watch = Watch(kube, RESOURCE_API + "/resourceslices", sink, fieldSelector="spec.driver=" + target.driver)
    watch.start()
    log = open(target.log, "ab") if target.log else subprocess.DEVNULL
    info = None
    begin = time.perf_counter()
    try:
        target.process = subprocess.Popen(
            shlex.split(target.start_cmd),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        spawned = time.perf_counter()
        waiting = {"dra_socket": target.dra_socket, "reg_socket": target.reg_socket}
        waiting = {k: v for k, v in waiting.items() if v}
        while waiting or not complete.is_set():
            for name, path in list(waiting.items()):
                if connectable(path):
                    seen[name] = time.perf_counter()
                    del waiting[name]
                    if name == "reg_socket":
                        info = asyncio.run(register(path))
            if target.process.poll() is not None:
                raise RuntimeError(f"{target.label}: the driver exited with {target.process.returncode}")
            if time.perf_counter() - begin > timeout:
                raise RuntimeError(
                    f"{target.label}: not up in {timeout} s, still waiting for "
                    f"{sorted(waiting) or 'its ResourceSlices'}"
                )
            time.sleep(0.002)
    finally:
        watch.stop()
        if log is not subprocess.DEVNULL:
            log.close()
    time.sleep(1.0)
    pids = target.pids()
    return {
        "spawn_ms": round((spawned - begin) * 1000, 1),
        "ms": {k: round((v - begin) * 1000, 1) for k, v in seen.items()},
        "cpu_ms": round(cpu_seconds(pids) * 1000),
        "memory": memory(pids),
        "plugin_info": info,
    }


def stop_target(target: Target, timeout: float = 30) -> dict[str, Any]:
    process = target.process
    if process is None:
        return {}
    begin = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout)
        graceful = True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        graceful = False
    target.process = None
    return {
        "ms": round((time.perf_counter() - begin) * 1000, 1),
        "graceful": graceful,
        "exit_code": process.returncode,
        "reg_socket_left": bool(target.reg_socket and os.path.exists(target.reg_socket)),
    }


# --------------------------------------------------------------------------- common set-up


@contextlib.contextmanager
def bench_namespace(kube: Kube, run_id: str, wait_account: bool):
    name = "dra-bench-" + run_id
    kube.call(
        "POST",
        "/api/v1/namespaces",
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"resource.kubernetes.io/admin-access": "true"}},
        },
    )
    try:
        deadline = time.monotonic() + 30
        while wait_account:
            with contextlib.suppress(ApiError):
                kube.call("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default")
                break
            if time.monotonic() > deadline:
                raise RuntimeError("the namespace got no default service account")
            time.sleep(0.1)
        yield name
    finally:
        kube.call("DELETE", "/api/v1/namespaces/" + name)


def environment(kube: Kube, node: str) -> dict[str, Any]:
    with contextlib.suppress(OSError, StopIteration):
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as handle:
            model = next(line.split(":", 1)[1].strip() for line in handle if line.startswith("model name"))
    info = kube.call("GET", "/api/v1/nodes/" + node)["status"]["nodeInfo"] if node else {}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "harness_version": HARNESS_VERSION,
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "protobuf": google.protobuf.__version__,
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "cpu_model": locals().get("model", ""),
        "kubernetes": kube.call("GET", "/version")["gitVersion"],
        "kubelet": info.get("kubeletVersion", ""),
        "runtime": info.get("containerRuntimeVersion", ""),
    }


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


# --------------------------------------------------------------------------- grpc mode


def create_claims(
    kube: Kube, namespace: str, node: str, target: Target, count: int, overlap: bool, pool: str = ""
) -> list[dict]:
    """Claims that are already allocated, the devices handed out in order: once each, or over and over with overlap.

    `pool`: another node's, for claims that are no business of the target.
    """
    per = target.devices_per_claim
    if count * per > len(target.devices) and not (overlap or target.admin_access):
        raise RuntimeError(f"{target.label}: {count} claims of {per} need more than {len(target.devices)} devices")
    devices = target.devices * (1 + count * per // len(target.devices))
    path = f"{RESOURCE_API}/namespaces/{namespace}/resourceclaims"
    claims = []
    admin = {"adminAccess": True} if target.admin_access else {}
    for number in range(count):
        made = kube.call(
            "POST",
            path,
            {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaim",
                "metadata": {"generateName": re.sub("[^a-z0-9]+", "-", target.label.lower()) + "-"},
                "spec": {
                    "devices": {
                        "requests": [
                            {
                                "name": "r0",
                                "exactly": {
                                    "deviceClassName": target.device_class,
                                    "allocationMode": "ExactCount",
                                    "count": per,
                                    **admin,
                                },
                            }
                        ]
                    }
                },
            },
        )
        made["status"] = {
            "allocation": {
                "devices": {
                    "results": [
                        {"request": "r0", "driver": target.driver, "pool": pool or target.pool, "device": device}
                        | admin
                        for device in devices[number * per : (number + 1) * per]
                    ]
                },
                "nodeSelector": {
                    "nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
                    ]
                },
            }
        }
        made = kube.call("PUT", f"{path}/{made['metadata']['name']}/status", made)
        claims.append(
            {"namespace": namespace, "name": made["metadata"]["name"], "uid": made["metadata"]["uid"], "devices": per}
        )
    return claims


def delete_claims(kube: Kube, claims: list[dict]) -> None:
    for claim in claims:
        kube.call("DELETE", f"{RESOURCE_API}/namespaces/{claim['namespace']}/resourceclaims/{claim['name']}")


@dataclass
class Phase:
    latencies: list[float] = field(default_factory=list)
    wall: float = 0.0
    cpu: float = 0.0
    claims: int = 0
    errors: list[str] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        out: dict[str, Any] = {"ms": summary(self.latencies), "errors": len(self.errors)}
        if self.errors:
            out["first_error"] = self.errors[0]
        if self.wall and self.claims:
            out["claims_per_s"] = round(self.claims / self.wall, 1)
            out["driver_cpu_ms_per_1000"] = round(self.cpu * 1e6 / self.claims, 1)
            out["driver_cpu_share"] = round(self.cpu / self.wall, 3)
        return out


async def run_phase(
    phase: Phase,
    pids: list[int],
    call: Callable[[list[dict]], Awaitable[str | None]],
    groups: list[list[dict]],
    concurrency: int,
) -> list[float]:
    """`call` once for each group of claims, `concurrency` calls at a time."""
    todo = iter(enumerate(groups))
    latencies = [0.0] * len(groups)

    async def worker() -> None:
        for index, group in todo:
            begin = time.perf_counter()
            try:
                error = await call(group)
            except grpc.aio.AioRpcError as failure:
                error = f"{failure.code().name}: {failure.details()}"
            latencies[index] = time.perf_counter() - begin
            if error:
                phase.errors.append(error)

    cpu, begin = cpu_seconds(pids), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    phase.wall += time.perf_counter() - begin
    phase.cpu += cpu_seconds(pids) - cpu
    phase.claims += sum(len(g) for g in groups)
    phase.latencies += latencies
    return latencies


def cdi_files(target: Target, claims: list[dict]) -> int:
    """How many of the claims are named in some CDI file (by file name or content)."""
    text = ""
    for entry in os.scandir(target.cdi_dir):
        if entry.name.endswith((".json", ".yaml")):
            with contextlib.suppress(OSError), open(entry.path, encoding="utf-8", errors="replace") as handle:
                text += entry.name + handle.read()
    return sum(c["uid"] in text for c in claims)


@dataclass
class Bench:
    """What a repetition needs to make claims."""

    kube: Kube
    namespace: str
    args: argparse.Namespace
    target: Target
    watch: Phase = field(default_factory=Phase)
    """What it costs the driver that claims are made, allocated and deleted."""

    @contextlib.contextmanager
    def claims(self, count: int):
        """New claims, as pods bring theirs: made, allocated, used once, deleted."""
        kube, args, target = self.kube, self.args, self.target
        pids = target.pids()
        cpu = cpu_seconds(pids)
        claims = create_claims(kube, self.namespace, args.node, target, count, args.overlap)
        time.sleep(args.pause)
        self.watch.cpu += cpu_seconds(pids) - cpu
        yield claims
        cpu = cpu_seconds(pids)
        delete_claims(kube, claims)
        time.sleep(args.pause)
        self.watch.cpu += cpu_seconds(pids) - cpu
        self.watch.claims += count


async def grpc_level(bench: Bench, client: DraClient, concurrency: int, count: int, rounds: int) -> dict[str, Any]:
    """Prepare all, again, unprepare all, each round with new claims."""
    target = bench.target
    pids = target.pids()
    prepare, again, unprepare = Phase(), Phase(), Phase()
    bench.watch = Phase()
    for _ in range(rounds):
        with bench.claims(count) as claims:
            singles = [[c] for c in claims]
            await run_phase(prepare, pids, client.prepare, singles, concurrency)
            await run_phase(again, pids, client.prepare, singles, concurrency)
            prepared = cdi_files(target, claims) if target.cdi_dir else None
            await run_phase(unprepare, pids, client.unprepare, singles, concurrency)
            left = cdi_files(target, claims) if target.cdi_dir else None
            if prepared is not None and (prepared, left) != (count, 0):
                prepare.errors.append(f"CDI: {prepared} of {count} claims after prepare, {left} after unprepare")
    calls, watch = prepare.cpu + unprepare.cpu, bench.watch.cpu
    return {
        "prepare": prepare.result(),
        "reprepare": again.result(),
        "unprepare": unprepare.result(),
        "cycle": {
            "claims_per_s": round(prepare.claims / (prepare.wall + unprepare.wall), 1),
            "driver_cpu_ms_per_1000": round(calls * 1e6 / prepare.claims, 1),
            "watch_cpu_ms_per_1000": round(watch * 1e6 / prepare.claims, 1),
            "with_watch_cpu_ms_per_1000": round((calls + watch) * 1e6 / prepare.claims, 1),
        },
    }


async def held_growth(bench: Bench, client: DraClient, count: int) -> dict[str, Any]:
    """Prepare many claims one after the other and keep them: the first ones beside the last ones."""
    pids = bench.target.pids()
    prepare, unprepare = Phase(), Phase()
    with bench.claims(count) as claims:
        singles = [[c] for c in claims]
        taken = await run_phase(prepare, pids, client.prepare, singles, 1)
        await run_phase(unprepare, pids, client.unprepare, singles, 1)
    part = max(1, count // 10)
    first, last = quantile(taken[:part], 0.5), quantile(taken[-part:], 0.5)
    return {
        "claims": count,
        "first_tenth_p50_ms": round(first * 1000, 3),
        "last_tenth_p50_ms": round(last * 1000, 3),
        "growth": round(last / first, 3),
        "errors": len(prepare.errors) + len(unprepare.errors),
        "memory": memory(pids),
    }


async def grpc_target(bench: Bench, count: int) -> dict[str, Any]:
    target, args = bench.target, bench.args
    rounds, pids = target.rounds or args.rounds, target.pids()
    client = DraClient(target.dra_socket)
    out: dict[str, Any] = {"claims": count, "rounds": rounds, "memory_before": memory(pids)}
    try:
        floor = Phase()
        await run_phase(Phase(), pids, client.prepare, [[]] * 20, 1)
        await run_phase(floor, pids, client.prepare, [[]] * args.noop_calls, 1)
        out["empty_call_ms"] = summary(floor.latencies)
        with bench.claims(args.warmup) as claims:
            await run_phase(Phase(), pids, client.prepare, [[c] for c in claims], 1)
            await run_phase(Phase(), pids, client.unprepare, [[c] for c in claims], 1)
        out["level"] = {
            str(concurrency): await grpc_level(bench, client, concurrency, count, rounds)
            for concurrency in args.concurrency
            if concurrency <= count
        }
        prepare, unprepare = Phase(), Phase()
        for _ in range(rounds):
            with bench.claims(count) as claims:
                groups = [claims[i : i + args.batch] for i in range(0, len(claims), args.batch)]
                await run_phase(prepare, pids, client.prepare, groups, 1)
                await run_phase(unprepare, pids, client.unprepare, groups, 1)
        out["batch"] = {"claims_per_call": args.batch, "prepare": prepare.result(), "unprepare": unprepare.result()}
        out["memory_after"] = memory(target.pids())
        if args.held:
            out["held"] = await held_growth(bench, client, args.held)
    finally:
        await client.close()
    return out


def idle_cpu(target: Target, seconds: float) -> dict[str, Any]:
    pids = target.pids()
    cpu, begin = cpu_seconds(pids), time.perf_counter()
    time.sleep(seconds)
    spent, wall = cpu_seconds(target.pids()) - cpu, time.perf_counter() - begin
    return {
        "seconds": round(wall, 1),
        "cpu_ms": round(spent * 1000),
        "cpu_percent_of_one_core": round(spent / wall * 100, 3),
        "memory": memory(target.pids()),
    }


def mode_grpc(args: argparse.Namespace, kube: Kube, targets: list[Target]) -> dict[str, Any]:
    results: dict[str, list] = {t.label: [] for t in targets}
    args.failures = failures = []
    with bench_namespace(kube, args.run_id, False) as namespace:
        for rep in range(args.reps):
            for target in targets if rep % 2 == 0 else targets[::-1]:
                say(f"repetition {rep + 1}/{args.reps}: {target.label}")
                one: dict[str, Any] = {"noise": noise(os.path.dirname(target.dra_socket))}
                try:
                    if target.start_cmd:
                        one["start"] = start_target(kube, target, args.start_timeout)
                    time.sleep(args.settle)  # for a driver that watches claims
                    one |= asyncio.run(grpc_target(Bench(kube, namespace, args, target), target.claims or args.claims))
                    if args.idle_seconds:
                        time.sleep(args.settle)
                        one["idle"] = idle_cpu(target, args.idle_seconds)
                    one["noise_after"] = noise(None)
                    results[target.label].append(one)
                except (RuntimeError, OSError) as failure:
                    say(f"FAILED, repetition dropped: {failure}")
                    failures.append(f"{target.label}, repetition {rep + 1}: {failure}"[:600])
                finally:
                    if target.start_cmd:
                        one["stop"] = stop_target(target)
        if args.foreign:
            foreign_claims(kube, namespace, args, [t for t in targets if t.start_cmd], results)
    return {label: {"summary": aggregate(reps), "repetitions": reps} for label, reps in results.items() if reps}


def foreign_claims(
    kube: Kube, namespace: str, args: argparse.Namespace, targets: list[Target], results: dict[str, list]
) -> None:
    """What claims of other nodes cost each driver: memory when it starts among them, CPU when more are made."""
    for target in targets:
        say(f"{args.foreign} claims on other nodes: {target.label}")
        there = create_claims(kube, namespace, args.node, target, args.foreign, True, pool="another-node")
        for one in results[target.label]:
            start_target(kube, target, args.start_timeout)
            time.sleep(args.settle)
            one["foreign"] = {"claims": args.foreign, "memory": memory(target.pids())}
            cpu, more = cpu_seconds(target.pids()), args.foreign // 10
            made = create_claims(kube, namespace, args.node, target, more, True, pool="another-node")
            delete_claims(kube, made)
            time.sleep(args.pause)
            one["foreign"]["cpu_ms_per_1000"] = round((cpu_seconds(target.pids()) - cpu) * 1e6 / more, 1)
            stop_target(target)
        delete_claims(kube, there)


# --------------------------------------------------------------------------- pod mode


class PodTracker:
    """Receive times of what happens to the pods and claims of one namespace."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.pods: dict[str, dict[str, float]] = {}
        self.claims: dict[str, dict[str, float]] = {}
        self.failed: dict[str, str] = {}

    def pod(self, kind: str, item: dict, now: float) -> None:
        with self.lock:
            seen = self.pods.setdefault(item["metadata"]["name"], {})
            if kind == "DELETED":
                seen.setdefault("gone", now)
            status = item.get("status", {})
            for condition in status.get("conditions", []):
                if condition["status"] == "True" and condition["type"] in ("PodScheduled", "Ready"):
                    seen.setdefault(condition["type"], now)
            if status.get("phase") == "Failed":
                self.failed[item["metadata"]["name"]] = json.dumps(status)[:400]
            self.lock.notify_all()

    def claim(self, kind: str, item: dict, now: float) -> None:
        owner = next((o["name"] for o in item["metadata"].get("ownerReferences", []) if o["kind"] == "Pod"), "")
        with self.lock:
            seen = self.claims.setdefault(owner, {})
            seen.setdefault("created", now)
            if item.get("status", {}).get("allocation"):
                seen.setdefault("allocated", now)
            if kind == "DELETED":
                seen.setdefault("gone", now)
            self.lock.notify_all()

    def wait(self, what: str, names: list[str], source: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self.lock:
            while True:
                missing = [n for n in names if what not in getattr(self, source).get(n, {})]
                failed = [self.failed[n] for n in missing if n in self.failed and what == "Ready"]
                if not missing:
                    return
                if failed or time.monotonic() > deadline:
                    raise RuntimeError(f"{len(missing)} of {len(names)} {source} did not become {what}; {failed[:1]}")
                self.lock.wait(0.5)


def kubelet_dra_metrics(kube: Kube, node: str, driver: str) -> dict[str, tuple[float, float]]:
    """(sum of seconds, count) per kubelet DRA operation; empty when it cannot be read."""
    out: dict[str, list[float]] = {}
    try:
        text = kube.call("GET", f"/api/v1/nodes/{node}/proxy/metrics", raw=True)
    except (ApiError, OSError):
        return {}
    for line in text.splitlines():
        match = re.match(r"(?:kubelet_)?(dra_(?:grpc_)?operations_duration_seconds)_(sum|count)\{([^}]*)\} (\S+)", line)
        if not match:
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match[3]))
        if labels.get("driver_name", driver) != driver:
            continue
        operation = labels.get("method_name") or labels.get("operation_name") or "?"
        name = ("grpc " if "grpc" in match[1] else "") + operation.rsplit("/", 1)[-1]
        slot = out.setdefault(name, [0.0, 0.0])
        slot[0 if match[2] == "sum" else 1] += float(match[4])
    return {k: (v[0], v[1]) for k, v in out.items()}


def pod_object(name: str, node: str, image: str, template: str) -> dict:
    script = "env; trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"
    container = {"name": "c", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]}
    spec: dict[str, Any] = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
    }
    if template:
        spec["resourceClaims"] = [{"name": "d", "resourceClaimTemplateName": template}]
        container["resources"] = {"claims": [{"name": "d"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def pod_wave(
    kube: Kube, namespace: str, node: str, args: argparse.Namespace, target: Target | None, names: list[str]
) -> list[dict[str, Any]]:
    """Create the pods at once, wait until all are Ready, delete them, wait until all is gone."""
    tracker = PodTracker()
    base = f"/api/v1/namespaces/{namespace}/pods"
    watches = [
        Watch(kube, base, tracker.pod),
        Watch(kube, f"{RESOURCE_API}/namespaces/{namespace}/resourceclaims", tracker.claim),
    ]
    for watch in watches:
        watch.start()
    template = template_name(target) if target else ""
    try:
        posted, deleted = {}, {}
        for name in names:
            posted[name] = time.perf_counter()
            kube.call("POST", base, pod_object(name, node, args.image, template))
        tracker.wait("Ready", names, "pods", args.pod_timeout)
        if target and target.verify_env:
            for _ in range(50):  # a container is Ready before its first output is in the log
                text = kube.call("GET", f"{base}/{names[0]}/log", raw=True)
                if re.search(target.verify_env, text):
                    break
                time.sleep(0.1)
            else:
                raise RuntimeError(f"{target.label}: nothing in the container matches {target.verify_env!r}: {text}")
        for name in names:
            deleted[name] = time.perf_counter()
            kube.call("DELETE", f"{base}/{name}")
        tracker.wait("gone", names, "pods", args.pod_timeout)
        if target:
            tracker.wait("gone", names, "claims", args.pod_timeout)
    finally:
        for watch in watches:
            watch.stop()
    retried: dict[str, str] = {}
    events = kube.list(f"/api/v1/namespaces/{namespace}/events", fieldSelector="involvedObject.kind=Pod")["items"]
    for event in events:
        if event.get("type") == "Warning" and event.get("reason") in RETRY_REASONS:
            retried.setdefault(event["involvedObject"]["name"], f"{event['reason']}: {event.get('message', '')}"[:500])
    samples = []
    for name in names:
        pod, claim = tracker.pods[name], tracker.claims.get(name, {})
        sample = {
            "ready": pod["Ready"] - posted[name],
            "scheduled": pod["PodScheduled"] - posted[name],
            "scheduled_to_ready": pod["Ready"] - pod["PodScheduled"],
            "delete_to_gone": pod["gone"] - deleted[name],
        }
        if claim:
            sample |= {
                "claim_created": claim["created"] - posted[name],
                "claim_allocated": claim["allocated"] - posted[name],
            }
        sample = {k: round(v, 4) for k, v in sample.items()}
        samples.append(sample | ({"retried": retried[name]} if name in retried else {}))
    return samples


def template_name(target: Target) -> str:
    return "t-" + re.sub("[^a-z0-9]+", "-", target.label.lower())


def settle(kube: Kube, targets: list[Target], args: argparse.Namespace) -> None:
    """Let the kubelet register the driver; it may still wipe the slices of a driver that was just away."""
    time.sleep(args.register_wait)
    deadline = time.monotonic() + args.pod_timeout
    for target in targets:
        while not {d["name"] for s in driver_slices(kube, target) for d in s["spec"].get("devices", [])}.issuperset(
            target.devices
        ):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{target.label}: its ResourceSlices are gone")
            time.sleep(1)


def clear_pods(kube: Kube, namespace: str) -> None:
    base = f"/api/v1/namespaces/{namespace}/pods"
    kube.call("DELETE", base)
    deadline = time.monotonic() + 120
    while kube.list(base)["items"] and time.monotonic() < deadline:
        time.sleep(0.5)


def pod_variant(
    kube: Kube, namespace: str, args: argparse.Namespace, target: Target | None, wave: int, pods: int, counter: int
) -> tuple[dict[str, Any], int]:
    before = kubelet_dra_metrics(kube, args.node, target.driver) if target else {}
    cpu = cpu_seconds(target.pids()) if target else 0.0
    samples: list[dict] = []
    for first in range(0, pods, wave):
        names = [f"p{counter + i}" for i in range(min(wave, pods - first))]
        counter += len(names)
        samples += pod_wave(kube, namespace, args.node, args, target, names)
    one: dict[str, Any] = {"samples": samples, "noise": noise(None)}
    if target:
        means = {}
        for name, (total, count) in kubelet_dra_metrics(kube, args.node, target.driver).items():
            total0, count0 = before.get(name, (0.0, 0.0))
            if count > count0:
                means[name] = round((total - total0) * 1000 / (count - count0), 3)
        one["kubelet_mean_ms"] = means
        one["driver_cpu_ms_per_pod"] = round((cpu_seconds(target.pids()) - cpu) * 1000 / len(samples), 3)
    return one, counter


def mode_pod(args: argparse.Namespace, kube: Kube, targets: list[Target]) -> dict[str, Any]:
    results: dict[str, dict[str, list]] = {}
    failures: list[str] = []
    counter = 0
    own = [t for t in targets if t.start_cmd]
    one_driver = len({t.driver for t in own}) == len(own)
    with bench_namespace(kube, args.run_id, True) as namespace:
        for target in targets:
            kube.call(
                "POST",
                f"{RESOURCE_API}/namespaces/{namespace}/resourceclaimtemplates",
                {
                    "apiVersion": "resource.k8s.io/v1",
                    "kind": "ResourceClaimTemplate",
                    "metadata": {"name": template_name(target)},
                    "spec": {
                        "spec": {
                            "devices": {
                                "requests": [
                                    {
                                        "name": "r0",
                                        "exactly": {
                                            "deviceClassName": target.device_class,
                                            "allocationMode": "ExactCount",
                                            "count": target.devices_per_claim,
                                        },
                                    }
                                ]
                            }
                        }
                    },
                },
            )
        try:
            if one_driver:
                for target in own:
                    start_target(kube, target, args.start_timeout)
                settle(kube, own, args)
            for rep in range(args.reps):
                variants: list[Target | None] = [None, *targets]
                shift = rep % len(variants)
                for target in variants[shift:] + variants[:shift]:
                    label = target.label if target else "no claim"
                    say(f"repetition {rep + 1}/{args.reps}: {label}")
                    try:
                        if target and target.start_cmd and not one_driver:
                            start_target(kube, target, args.start_timeout)
                            settle(kube, [target], args)
                        for wave, pods in args.waves:
                            one, counter = pod_variant(kube, namespace, args, target, wave, pods, counter)
                            results.setdefault(f"{wave} at once", {}).setdefault(label, []).append(one)
                    except (RuntimeError, OSError) as failure:
                        say(f"FAILED, repetition dropped: {failure}")
                        failures.append(f"{label}, repetition {rep + 1}: {failure}"[:600])
                        clear_pods(kube, namespace)
                        counter += 1000
                    finally:
                        if target and target.start_cmd and not one_driver:
                            stop_target(target)
        finally:
            for target in own:
                stop_target(target)
    out: dict[str, Any] = {}
    args.failures = failures
    for wave_name, by_label in results.items():
        for label, reps in by_label.items():
            everything = [s for r in reps for s in r["samples"]]
            clean = [s for s in everything if "retried" not in s]
            keys = dict.fromkeys(k for s in everything for k in s if k != "retried")
            out.setdefault(wave_name, {})[label] = {
                "pods": len(everything),
                "pods_retried": len(everything) - len(clean),
                "retry_messages": sorted(
                    {re.sub(r"[\w-]*\d[\w-]*", "#", s["retried"]) for s in everything if "retried" in s}
                )[:5],
                "all_s": {k: summary([s[k] for s in everything if k in s], 1.0) for k in keys},
                "without_retried_s": {k: summary([s[k] for s in clean if k in s], 1.0) for k in keys},
                "by_repetition": aggregate(
                    [
                        {"ready_p50": quantile([s["ready"] for s in r["samples"]], 0.5)}
                        | {k: v for k, v in r.items() if k in ("kubelet_mean_ms", "driver_cpu_ms_per_pod")}
                        for r in reps
                    ]
                ),
                "repetitions": reps,
            }
    return out


# --------------------------------------------------------------------------- table


def dig(data: Any, path: str) -> Any:
    for part in path.split("/"):
        if not isinstance(data, dict) or part not in data:
            return None
        data = data[part]
    return data


def show(value: Any) -> str:
    if isinstance(value, dict) and "median" in value:
        if value["min"] == value["max"]:
            return f"{value['median']:g}"
        return f"{value['median']:g} ({value['min']:g}–{value['max']:g})"
    return "–" if value is None else f"{value:g}" if isinstance(value, (int, float)) else str(value)


def mode_table(files: list[str]) -> None:
    grpc_columns: dict[str, dict] = {}
    pod_rows: list[tuple[str, str, dict]] = []
    for path in files:
        with open(path, encoding="utf-8") as handle:
            data = json.load(handle)
        for run in data["runs"]:
            if run["mode"] == "grpc":
                grpc_columns |= {label: r["summary"] for label, r in run["results"].items()}
            else:
                pod_rows += [(wave, label, r) for wave, by in run["results"].items() for label, r in by.items()]
    if grpc_columns:
        rows = [
            ("start: registration socket answers, ms", "start/ms/reg_socket"),
            ("start: DRA socket answers, ms", "start/ms/dra_socket"),
            ("start: first ResourceSlice, ms", "start/ms/first_slice"),
            ("start: all slices, ms", "start/ms/all_slices"),
            ("start: CPU, ms", "start/cpu_ms"),
            ("stop on SIGTERM, ms", "stop/ms"),
            ("claims outstanding", "claims"),
            ("empty call, p50 ms", "empty_call_ms/p50"),
        ]
        levels = dict.fromkeys(c for s in grpc_columns.values() for c in s["level"])
        for c in levels:
            for phase in ("prepare", "reprepare", "unprepare"):
                rows += [(f"{phase}, {c} at once, {q} ms", f"level/{c}/{phase}/ms/{q}") for q in ("p50", "p90", "p99")]
                rows.append((f"{phase}, {c} at once, claims/s", f"level/{c}/{phase}/claims_per_s"))
            rows += [
                (f"errors, {c} at once", f"level/{c}/prepare/errors"),
                (
                    f"prepare+unprepare, {c} at once, driver CPU ms per 1000 claims",
                    f"level/{c}/cycle/driver_cpu_ms_per_1000",
                ),
                (f"the same with the watch's share, {c} at once", f"level/{c}/cycle/with_watch_cpu_ms_per_1000"),
            ]
        rows += [
            ("claims held, in the end", "held/claims"),
            ("prepare p50 ms, first tenth of them", "held/first_tenth_p50_ms"),
            ("prepare p50 ms, last tenth of them", "held/last_tenth_p50_ms"),
            ("last / first", "held/growth"),
            ("claims in one call", "batch/claims_per_call"),
            ("prepare, many in one call, p50 ms", "batch/prepare/ms/p50"),
            ("RSS after start, KiB", "start/memory/rss_kib"),
            ("RSS after load, KiB", "memory_after/rss_kib"),
            ("RSS anonymous after load, KiB", "memory_after/rss_anon_kib"),
            ("RSS high-water mark, KiB", "memory_after/hwm_kib"),
            ("PSS after load, KiB", "memory_after/pss_kib"),
            ("threads", "memory_after/threads"),
            ("RSS with the claims held, KiB", "held/memory/rss_kib"),
            ("RSS high-water mark among claims of other nodes, KiB", "foreign/memory/hwm_kib"),
            ("CPU ms per 1000 claims made and deleted on other nodes", "foreign/cpu_ms_per_1000"),
            ("idle CPU, % of a core", "idle/cpu_percent_of_one_core"),
            ("fsync+rename probe, p50 ms", "noise/fsync_ms/p50"),
            ("spin probe, ms", "noise/spin_ms"),
        ]
        print("| median (min–max of repetitions) | " + " | ".join(grpc_columns) + " |")
        print("|---|" + "---|" * len(grpc_columns))
        for title, where in rows:
            values = [dig(s, where) for s in grpc_columns.values()]
            if any(v is not None for v in values):
                print(f"| {title} | " + " | ".join(show(v) for v in values) + " |")
    if pod_rows:
        print(
            "\n| pods | variant | n | retried by the kubelet | ready p50 s (min–max of repetitions) | p90 | p99 | "
            "p99 without retried | scheduled p50 | scheduled→ready p50 | delete→gone p50 | "
            "kubelet: NodePrepareResources mean ms | driver CPU ms per pod |"
        )
        print("|---" * 13 + "|")
        for wave, label, r in pod_rows:
            p, clean, by = r["all_s"], r["without_retried_s"], r["by_repetition"]
            spread = f"({by['ready_p50']['min']:g}–{by['ready_p50']['max']:g})"
            cells = [
                wave,
                label,
                r["pods"],
                r["pods_retried"],
                f"{p['ready']['p50']:g} {spread}",
                p["ready"]["p90"],
                p["ready"]["p99"],
                clean["ready"].get("p99"),
                clean["scheduled"].get("p50"),
                clean["scheduled_to_ready"].get("p50"),
                clean["delete_to_gone"].get("p50"),
                show(dig(by, "kubelet_mean_ms/grpc NodePrepareResources")),
                show(by.get("driver_cpu_ms_per_pod")),
            ]
            print("| " + " | ".join(str(c) for c in cells) + " |")


# --------------------------------------------------------------------------- goals

GOALS: list[tuple[str, str, str, float]] = [
    ("prepare, 1 in flight, p50 ms", "level/1/prepare/ms/p50", "<=", 1 / 4),
    ("prepare, 1 in flight, p99 ms", "level/1/prepare/ms/p99", "<=", 1 / 3),
    ("unprepare, 1 in flight, p50 ms", "level/1/unprepare/ms/p50", "<=", 2 / 3),
    ("prepares/s at 1 in flight", "level/1/prepare/claims_per_s", ">=", 4),
    ("prepares/s at 8 in flight", "level/8/prepare/claims_per_s", ">=", 3.5),
    ("prepares/s at 32 in flight", "level/32/prepare/claims_per_s", ">=", 3.5),
    ("CPU ms per 1,000, the watch's share included, at 1", "level/1/cycle/with_watch_cpu_ms_per_1000", "<=", 1 / 3),
    ("CPU ms per 1,000, the watch's share included, at 8", "level/8/cycle/with_watch_cpu_ms_per_1000", "<=", 1 / 3),
    ("CPU ms per 1,000, the watch's share included, at 32", "level/32/cycle/with_watch_cpu_ms_per_1000", "<=", 1 / 3),
    ("prepare p50, last tenth of the claims held / first tenth", "held/growth", "own", 1.1),
    ("resident after load, KiB", "memory_after/rss_kib", "<=", 1),
    ("peak when started among claims of other nodes, KiB", "foreign/memory/hwm_kib", "<=", 1),
    ("start to first slice, ms", "start/ms/first_slice", "<=", 1 / 5),
]
"""Row, where it stands in a result, and what the ratio of the first column to the last has to be; `own`: the figure."""


def mode_goals(file: str) -> None:
    """The first target beside the last, row by row, with what is wanted."""
    with open(file, encoding="utf-8") as handle:
        results = json.load(handle)["runs"][-1]["results"]
    if len(results) < 2:
        return  # alone, or the other one failed
    (ours, first), *_, (theirs, last) = results.items()
    print(f"| | {ours} | {theirs} | ratio | goal | |")
    print("|---|---|---|---|---|---|")
    for title, where, sign, goal in GOALS:
        mine, other = dig(first["summary"], where), dig(last["summary"], where)
        if not mine or not other:
            continue
        ratio = mine["median"] if sign == "own" else mine["median"] / other["median"]
        reached = ratio >= goal if sign == ">=" else ratio <= goal
        wanted = f"{sign.replace('own', '<=').replace('<=', '≤').replace('>=', '≥')} {goal:.3g}"
        cells = [title, show(mine), show(other), f"{ratio:.3g}", wanted, "reached" if reached else "missed"]
        print("| " + " | ".join(cells) + " |")


# --------------------------------------------------------------------------- command line


def main() -> None:
    env = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="mode", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--kubeconfig", default=env("KUBECONFIG"), help="admin kubeconfig [env KUBECONFIG]")
    common.add_argument("--node", default=env("DRA_BENCH_NODE"), help="node under test [env DRA_BENCH_NODE]")
    common.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="JSON|@FILE",
        help="a driver under test; repeat to compare several in the same run",
    )
    common.add_argument("--reps", type=int, default=5, help="repetitions; the order of the targets alternates")
    common.add_argument("--start-timeout", type=float, default=60)
    common.add_argument("--out", help="result file; a run is appended when the file exists")
    common.add_argument("--note", action="append", default=[], metavar="KEY=VALUE", help="stored with the run")
    one = sub.add_parser("grpc", parents=[common], help="drive the DRA socket")
    one.add_argument("--claims", type=int, default=64, help="claims outstanding at most")
    one.add_argument(
        "--overlap",
        action="store_true",
        help="give devices to several claims, so that more claims than devices can be held",
    )
    one.add_argument("--rounds", type=int, default=5, help="prepare/re-prepare/unprepare rounds per level")
    one.add_argument("--concurrency", type=lambda s: [int(x) for x in s.split(",")], default=[1, 8, 32])
    one.add_argument("--batch", type=int, default=16, help="claims in one call for the many-claims measurement")
    one.add_argument("--warmup", type=int, default=16, help="claims prepared and unprepared before measuring")
    one.add_argument("--noop-calls", type=int, default=200)
    one.add_argument("--held", type=int, default=0, help="claims to hold at once, to see what grows (wants overlap)")
    one.add_argument("--foreign", type=int, default=0, help="claims of other nodes to put beside: what they cost")
    one.add_argument("--pause", type=float, default=0.3, help="between the making of claims and their use")
    one.add_argument("--settle", type=float, default=2.0)
    one.add_argument("--idle-seconds", type=float, default=30.0)
    two = sub.add_parser("pod", parents=[common], help="pod creation -> Ready")
    two.add_argument(
        "--waves",
        type=lambda s: [tuple(map(int, x.split(":"))) for x in s.split(",")],
        default=[(1, 8), (16, 32)],
        metavar="SIZE:PODS,...",
        help="pods created at once : pods in all, per variant and repetition (default 1:8,16:32)",
    )
    two.add_argument("--image", default=env("DRA_BENCH_IMAGE", "busybox:latest"), help="[env DRA_BENCH_IMAGE]")
    two.add_argument("--pod-timeout", type=float, default=180)
    two.add_argument("--register-wait", type=float, default=5.0, help="pause between driver start and first pod")
    tab = sub.add_parser("table", help="print result files as Markdown")
    tab.add_argument("files", nargs="+")
    goals = sub.add_parser("goals", help="print the last run of a file beside what is wanted")
    goals.add_argument("file")
    args = parser.parse_args()
    if args.mode == "table":
        mode_table(args.files)
        return
    if args.mode == "goals":
        mode_goals(args.file)
        return
    if not args.kubeconfig or not args.node or not args.target:
        parser.error("--kubeconfig, --node and at least one --target are needed")
    targets = [Target.load(t) for t in args.target]
    if len({t.label for t in targets}) != len(targets):
        parser.error("every target needs a label of its own")
    for target in targets:
        if args.mode == "grpc" and not target.dra_socket:
            parser.error(f"{target.label}: dra_socket is needed")
        if target.dra_socket and len(os.path.abspath(target.dra_socket)) > 107:
            parser.error(f"{target.label}: a socket path may have 107 characters at most")
    args.run_id = uuid.uuid4().hex[:8]
    kube = Kube(args.kubeconfig)
    run = {
        "mode": args.mode,
        "environment": environment(kube, args.node),
        "notes": dict(n.split("=", 1) for n in args.note),
        "targets": [t.describe() for t in targets],
        "settings": {
            k: v
            for k, v in vars(args).items()
            if k not in ("mode", "kubeconfig", "target", "out", "note", "run_id", "node")
        },
    }
    run["results"] = (mode_grpc if args.mode == "grpc" else mode_pod)(args, kube, targets)
    run["failures"] = args.failures
    if args.out:
        document: dict[str, Any] = {"runs": []}
        if os.path.exists(args.out):
            with open(args.out, encoding="utf-8") as handle:
                document = json.load(handle)
        document["runs"].append(run)
        with open(args.out + ".tmp", "w", encoding="utf-8") as handle:
            json.dump(document, handle, indent=1)
            handle.write("\n")
        os.replace(args.out + ".tmp", args.out)
    else:
        json.dump(run, sys.stdout, indent=1)
    sys.exit(1 if args.failures else 0)


if __name__ == "__main__":
    main()
