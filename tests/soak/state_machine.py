"""A million things that happen to a node's claims: the state machine of the unit tests, a million times.

    python tests/soak/state_machine.py --steps 1000000 --seed 7

Runs lives of 50 steps each until there were so many steps, and tells the rate. A life in which something did not hold
is made as short as it can be and printed as the calls to repeat; the exit status is then 1. The seed decides
everything, so the same one finds the same again.
"""

import argparse
import logging
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "agent"))

from hypothesis import seed as seeded
from hypothesis.stateful import invariant, run_state_machine_as_test
from test_state_machine import Node, bounded

LIVES = 200
"""In one go: hypothesis remembers what it tried, and the more it remembers the slower it is."""


class Counted(Node):
    """Counts the steps."""

    steps = 0

    @invariant()
    def everything_is_in_order(self) -> None:
        Counted.steps += 1
        super().everything_is_in_order()


def run(steps: int, seed: int) -> int:
    """All steps; 0, or 1 when something did not hold."""
    chance = random.Random(seed)
    started = told = time.monotonic()
    while Counted.steps < steps:
        try:
            run_state_machine_as_test(
                seeded(chance.randrange(2**64))(Counted),
                settings=bounded(examples=LIVES, database=None, report_multiple_bugs=False),
            )
        except Exception as error:
            notes = "\n".join(getattr(error, "__notes__", ()))
            print(f"seed {seed}: after about {Counted.steps} steps: {type(error).__name__}: {error}\n{notes}")
            return 1
        now = time.monotonic()
        if now - told > 60:
            print(f"{Counted.steps} steps, {Counted.steps / (now - started):.0f} a second", flush=True)
            told = now
    seconds = time.monotonic() - started
    print(
        f"seed {seed}: {Counted.steps} steps in {seconds:.0f} s ({Counted.steps / seconds:.0f} a second): no core "
        "given twice, no answer lost, nothing left over"
    )
    return 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    logging.getLogger("neuron_dra_driver").setLevel(logging.CRITICAL)  # its warnings are what is asked for here
    return run(options.steps, options.seed)


if __name__ == "__main__":
    sys.exit(main())
