"""``neuron-sim-serve``: a model that answers requests as fast as its chips and links let it; `steps.job` has it all."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run on this process's arguments."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    from neuron_runtime.steps import arguments, job

    status = job.run(arguments.parse_serve(sys.argv[1:]), environment=os.environ)
    os._exit(status)
