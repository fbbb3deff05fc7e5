"""`python -m neuron_dra_driver.virtual_nodes`: the agent of virtual nodes as a process."""

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

from ..agent import logging_json
from ..api_server.kube import Kube
from ..errors import AgentError
from ..names import DRIVER_NAME
from .process import run
from .publisher import WRITERS

log = logging.getLogger(__name__)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="neuron_dra_driver.virtual_nodes", description=__doc__)
    parser.add_argument("--driver-name", default=DRIVER_NAME, help="default: %(default)s")
    parser.add_argument("--efa", action="store_true", help="offer EFA cards beside the chips: a second slice a node")
    parser.add_argument("--metrics-port", type=int, default=8000, help="/metrics and /healthz; default: %(default)s")
    parser.add_argument(
        "--metrics-pages",
        type=int,
        default=1,
        metavar="N",
        help="pages /metrics/1 to /metrics/N, each with a part of the nodes; default: %(default)s",
    )
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        default=os.environ.get("KUBECONFIG") or None,
        help="outside a pod (env KUBECONFIG); default: the pod's service account",
    )
    return parser


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Kube(options.kubeconfig, kept=WRITERS) as kube:
        await run(
            kube,
            driver=options.driver_name,
            efa=options.efa,
            metrics_port=options.metrics_port,
            metrics_pages=options.metrics_pages,
            stop=stop,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """The process: 0 when it was told to stop, 1 with a sentence when it cannot go on."""
    options = arguments().parse_args(argv)
    logging_json.configure()
    gc.freeze()
    try:
        uvloop.run(serve(options))
    except (AgentError, OSError) as error:
        log.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
