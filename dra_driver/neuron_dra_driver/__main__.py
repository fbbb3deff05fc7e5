"""`python -m neuron_dra_driver`: the node agent as a process."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from neuron_device_model.partitions import OFFERED_DEVICES, PARTITIONS

from .agent import logging_json
from .agent.agent import Agent
from .agent.settings import Settings
from .api_server.kube import Kube
from .errors import AgentError
from .names import DRIVER_NAME
from .node import standalone

log = logging.getLogger(__name__)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="neuron_dra_driver", description=__doc__)
    parser.add_argument("--node-name", default=os.environ.get("NODE_NAME"), help="this node (env NODE_NAME)")
    parser.add_argument(
        "--pod-uid",
        default=os.environ.get("POD_UID") or None,
        help="uid of the agent's pod; lets two agents overlap in a rolling update (env POD_UID)",
    )
    parser.add_argument("--driver-name", default=DRIVER_NAME, help="default: %(default)s")
    for flag, default, text in (
        ("--plugins-dir", "/var/lib/kubelet/plugins", "the kubelet's folder of plugins"),
        ("--registry-dir", "/var/lib/kubelet/plugins_registry", "where the kubelet looks for plugins"),
        ("--device-plugins-dir", "/var/lib/kubelet/device-plugins", "where the kubelet looks for device plugins"),
        ("--pod-resources-dir", "/var/lib/kubelet/pod-resources", "where the kubelet says which pod has what"),
        ("--cdi-dir", "/var/run/cdi", "where the container runtime looks for CDI files"),
        ("--state-dir", "/var/lib/neuron-sim", "folder on the node that survives a reboot"),
        ("--run-dir", "/run/neuron-sim", "folder on the node's tmpfs"),
        ("--runtime-tree", "/opt/neuron-sim/runtime", "the tools to bring to the node"),
    ):
        parser.add_argument(flag, type=Path, default=Path(default), help=f"{text}; default: %(default)s")
    parser.add_argument(
        "--no-efa", dest="efa", action="store_false", help="offer no EFA cards beside the chips, where there are some"
    )
    parser.add_argument("--metrics-port", type=int, default=8000, help="/metrics and /healthz; default: %(default)s")
    alone = parser.add_argument_group("without an operator (no CRD is read or written)")
    alone.add_argument("--instance-type", help="offer the devices of this instance type, as trn2.48xlarge")
    alone.add_argument("--logical-neuron-core", type=int, help="default: the chip's")
    alone.add_argument(
        "--partitions",
        choices=PARTITIONS,
        default=PARTITIONS[0],
        help="which cores are devices of their own, besides; default: %(default)s",
    )
    alone.add_argument(
        "--devices",
        choices=OFFERED_DEVICES,
        default=OFFERED_DEVICES[0],
        help="chips, the node as a whole, or both; default: %(default)s",
    )
    alone.add_argument("--sdk-version", help="default: the newest that is known")
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        default=os.environ.get("KUBECONFIG") or None,
        help="outside a pod (env KUBECONFIG); default: the pod's service account",
    )
    return parser


def settings(options: argparse.Namespace) -> Settings:
    """What the command line means; raises an AgentError when it means nothing."""
    if not options.node_name:
        raise AgentError("which node is this? give --node-name or set NODE_NAME")
    if not options.instance_type and (options.logical_neuron_core or options.sdk_version):
        raise AgentError("--logical-neuron-core and --sdk-version need --instance-type; else the NeuronNode says them")
    return Settings(
        node_name=options.node_name,
        driver_name=options.driver_name,
        plugins_dir=options.plugins_dir,
        registry_dir=options.registry_dir,
        device_plugins_dir=options.device_plugins_dir,
        pod_resources_dir=options.pod_resources_dir,
        cdi_dir=options.cdi_dir,
        state_dir=options.state_dir,
        run_dir=options.run_dir,
        runtime_tree=options.runtime_tree,
        metrics_port=options.metrics_port,
        pod_uid=options.pod_uid,
        efa=options.efa,
        standalone=standalone(
            name=options.node_name,
            type_name=options.instance_type,
            logical_neuron_core=options.logical_neuron_core,
            sdk_version=options.sdk_version,
            partitions=options.partitions,
            devices=options.devices,
        )
        if options.instance_type
        else None,
    )


async def serve(options: argparse.Namespace) -> None:
    """Run the agent until SIGTERM or SIGINT."""
    configured = settings(options)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Kube(options.kubeconfig) as kube:
        await Agent(configured, kube).run(stop)


def main(argv: Sequence[str] | None = None) -> int:
    """The process: 0 when it was told to stop, 1 with a sentence when it cannot go on."""
    options = arguments().parse_args(argv)
    logging_json.configure()
    gc.freeze()  # what is imported stays: no collection needs to look at it, in the middle of a call
    try:
        uvloop.run(serve(options))
    except (AgentError, OSError) as error:
        log.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
