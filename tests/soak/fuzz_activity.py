"""A million lines to a claim's socket: each is a report or is refused in a sentence, and none touches another claim.

    python tests/soak/fuzz_activity.py --examples 1000000 --seed 7

Lines are reports with something changed: a field, a type, a number, bytes of the JSON; some are whole. What is taken is
put on the claim's board, and rendered from time to time as a page, which both parsers of Prometheus' client have to
read. The board of another claim stays what it was.

The seed decides everything; it is printed, and so is the line that failed.
"""

import argparse
import copy
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import orjson
from neuron_dra_driver.activity.board import Board
from neuron_dra_driver.activity.exposition import Shown
from neuron_dra_driver.activity.reports import WrongMessage, message, report
from neuron_dra_driver.agent import openmetrics
from node_page import busy_node, rendered, report_of, requests
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

RENDERED_EACH = 20_000
WHOLE = {**report_of(0, age=100), "tag": "job"}
TEXT = json.dumps(WHOLE)
STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    1e999,
    1 << 70,
    "",
    "\u2028",
    '"\\\n',
    [],
    {},
    {"0": {}},
    {"x": 1},
    0.1,
    "nan",
)


def line(chance: random.Random) -> bytes:
    """One of them."""
    said = orjson.loads(TEXT)
    for _ in range(chance.choice((0, 1, 1, 1, 2))):
        place: Any = said
        while isinstance(place, dict) and place:
            name = chance.choice(list(place))
            if chance.random() < 0.4 or not isinstance(place[name], dict):
                if chance.random() < 0.2:
                    del place[name]
                else:
                    place[chance.choice((name, name, "strange"))] = copy.deepcopy(chance.choice(STRANGE))
                break
            place = place[name]
    text = bytearray(json.dumps(said).encode())
    if chance.random() < 0.3:
        for _ in range(chance.randrange(1, 4)):
            text[chance.randrange(len(text))] = chance.randrange(256)
    return bytes(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    args = parser.parse_args()
    print(f"seed {args.seed}")
    chance = random.Random(args.seed)
    node = busy_node("worker-1")
    template = requests(node)[0]
    other = Board(range(4))
    other.put("other", report(WHOLE, cores=range(4)))
    kept = json.dumps(other.processes())
    taken = refused = 0
    board = Board(range(4))
    for number in range(args.examples):
        written = line(chance)
        try:
            try:
                board.put("fuzzed", report(message(written), cores=board.cores))
                taken += 1
            except WrongMessage as wrong:
                refused += bool(str(wrong))
                board.drop("fuzzed")  # as its connection ends
            if number % RENDERED_EACH == 0:
                shown = Shown(template.claim, template.view, template.pods, board.processes())
                page = rendered(node, [shown])
                list(text_families(page.decode()))
                list(openmetrics_families((openmetrics.converted(page) + openmetrics.END).decode()))
        except Exception:
            print(f"example {number}: {written!r}", file=sys.stderr)
            raise
    assert json.dumps(other.processes()) == kept
    assert taken
    assert taken + refused == args.examples, "each refusal is a sentence"
    print(f"{args.examples} lines: {taken} reports, {refused} refused, none crashed anything")
    return 0


if __name__ == "__main__":
    sys.exit(main())
