"""``python -m neuron_operator``: the operator itself, and the steps that Helm runs around it."""

import argparse
import asyncio
import os
import socket
import sys
import uuid
from pathlib import Path

from neuron_operator import crds, kube, logs, names, running
from neuron_operator.hooks import definitions
from neuron_operator.hooks.uninstall import uninstall
from neuron_operator.ultraservers.loop import MOST_DEVICES

_SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "crds":
        for path in crds.write(options.output):
            _say(str(path))
        return 0
    if options.kubeconfig:
        os.environ["KUBECONFIG"] = options.kubeconfig  # kopf reads it from there
    if options.command == "run":
        logs.configure(plain=options.log_format == "plain")
        return asyncio.run(_run(options))
    return asyncio.run(_hook(options))


async def _run(options: argparse.Namespace) -> int:
    return await running.run(
        running.Options(
            driver_name=options.driver_name,
            namespace=options.namespace,
            identity=options.identity,
            health_port=options.health_port,
            metrics_port=options.metrics_port,
            gangs=options.gangs,
            pod_groups=options.pod_groups,
            gang_barrier=options.gang_barrier,
            virtual_nodes=options.virtual_nodes,
            ultraserver_devices=options.ultraserver_devices,
            webhook_port=options.webhook_port,
            webhook_certificates=options.webhook_certificates,
            kubeconfig=options.kubeconfig,
        )
    )


async def _hook(options: argparse.Namespace) -> int:
    async with kube.connect(options.kubeconfig) as api:
        try:
            if options.command == "install-crds":
                return await definitions.install(api, timeout=options.timeout, say=_say)
            if options.command == "delete-crds":
                return await definitions.delete(api, timeout=options.timeout, say=_say)
            return await uninstall(api, driver_name=options.driver_name, timeout=options.timeout, say=_say)
        except kube.ApiError as error:
            _say(f"{options.command} failed: {error}")
            return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="neuron_operator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="run the operator")
    _connecting(run)
    _driver(run)
    run.add_argument("--namespace", default=_namespace(), help="namespace of the Lease (env POD_NAMESPACE)")
    run.add_argument("--identity", default=_identity(), help="holder of the Lease (env POD_NAME)")
    run.add_argument("--health-port", type=int, default=8080, help="port of /healthz; 0: none")
    run.add_argument("--metrics-port", type=int, default=8000, help="port of /metrics; 0: none")
    run.add_argument(
        "--gangs", action=argparse.BooleanOptionalAction, default=True, help="place the pods of gangs (default: yes)"
    )
    run.add_argument("--pod-groups", action="store_true", help="make a PodGroup for each gang (with --no-gangs)")
    run.add_argument("--gang-barrier", action="store_true", help="offer gangs a commit barrier in each UltraServer")
    run.add_argument("--virtual-nodes", action="store_true", help="make the nodes of pools with a count")
    run.add_argument(
        "--ultraserver-devices",
        type=int,
        default=MOST_DEVICES,
        metavar="N",
        help=f"offer each UltraServer as a device, too, in a cluster with at most N of them (default {MOST_DEVICES})",
    )
    run.add_argument(
        "--webhook-certificates",
        type=Path,
        metavar="FOLDER",
        help="serve the webhook that adds the gate to pods of gangs, with tls.crt and tls.key of this folder",
    )
    run.add_argument("--webhook-port", type=int, default=9443, help="its port (default 9443)")
    run.add_argument("--log-format", choices=("json", "plain"), default="json")

    write = commands.add_parser("crds", help="write the CRDs as YAML files")
    write.add_argument("--output", type=Path, required=True, help="folder to write to")

    for name, text in (
        ("install-crds", "install the CRDs or bring them to this release"),
        ("uninstall", "delete all pools and what follows from them; refuse while devices are in use"),
        ("delete-crds", "delete the CRDs and with them all objects of ours"),
    ):
        hook = commands.add_parser(name, help=text)
        _connecting(hook)
        if name == "uninstall":
            _driver(hook)
        hook.add_argument("--timeout", type=float, default=120.0, help="seconds to wait (default 120)")
    return parser


def _connecting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kubeconfig", help="default: the pod's service account, else $KUBECONFIG")


def _driver(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--driver-name", default=names.AWS_DRIVER_NAME, help="name of the DRA driver")


def _namespace() -> str:
    if "POD_NAMESPACE" in os.environ:
        return os.environ["POD_NAMESPACE"]
    if _SERVICE_ACCOUNT_NAMESPACE.exists():
        return _SERVICE_ACCOUNT_NAMESPACE.read_text(encoding="utf-8").strip()
    return "default"


def _identity() -> str:
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
