"""``python -m neuron_operator.extender``: AWS's Neuron scheduler extension."""

import argparse
import asyncio
import sys

from neuron_operator import logs
from neuron_operator.extender import running


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; returns the exit code."""
    parser = argparse.ArgumentParser(prog="neuron_operator.extender", description=__doc__)
    parser.add_argument("--port", type=int, default=12345, help="port of filter, bind, healthz, readyz and metrics")
    parser.add_argument("--kubeconfig", help="default: the pod's service account, else $KUBECONFIG")
    parser.add_argument("--log-format", choices=("json", "plain"), default="json")
    options = parser.parse_args(arguments)
    logs.configure(plain=options.log_format == "plain")
    return asyncio.run(running.run(port=options.port, kubeconfig=options.kubeconfig))


if __name__ == "__main__":
    sys.exit(main())
