"""``neuron-sim-train``: a training job whose step time is that of its chips and links; `steps.job` has all of it."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run on this process's arguments."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    from neuron_runtime.steps import arguments, job

    status = job.run(arguments.parse_train(sys.argv[1:]), environment=os.environ)
    os._exit(status)
