"""A million wrong lines through a claim's real socket: each is answered with a sentence, and another claim goes on.

    python tests/soak/fuzz_activity_socket.py --examples 1000000 --seed 7

The lines are those of `fuzz_activity.py`, which asks parser and board alone. Here they come through the agent's own
server on a Unix socket, in up to 64 conversations at once. A conversation is a few lines that may pass and
one that does not, which ends it; some are cut off in the middle of a line. Meanwhile a process of another claim reports
and asks: it is answered with its own numbers, and how long it had to wait is printed.

The seed decides what is sent; it is printed, and so is the conversation that went wrong.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from fuzz_activity import WHOLE, line
from neuron_dra_driver.activity.board import Board
from neuron_dra_driver.activity.claim_socket import CONNECTIONS, NAME, ClaimSocket, bind
from neuron_dra_driver.activity.reports import WrongMessage, message, report

CORES = range(4)
AT_ONCE = 8
"""Lines of a conversation, below what it may say without a pause."""
CUT_OFF = 0.02
PATIENCE = 30.0
TELL_EACH = 100_000
ASK = b'{"ask": "activity"}\n'


class Claim:
    """A claim's socket, served."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.board = Board(CORES)
        # a path may be longer than an address
        self.address = os.path.relpath(folder / NAME)
        self.serving = asyncio.create_task(ClaimSocket(bind(folder), self.board, name=folder.name).serve())

    async def end(self) -> None:
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)


def conversations(chance: random.Random, examples: int) -> Iterator[tuple[bytes, int, bool]]:
    """What is sent, how many lines are wrong, and whether there is an answer: at most one is, the last."""
    wrong = 0
    while wrong < examples:
        lines: list[bytes] = []
        refused = False
        while not refused and len(lines) < AT_ONCE:
            lines.append(line(chance).replace(b"\n", b" ") + b"\n")
            try:
                report(message(lines[-1]), cores=frozenset(CORES))
            except WrongMessage:
                refused = True
        if chance.random() < CUT_OFF:
            lines[-1] = lines[-1][: chance.randrange(1, len(lines[-1]) - 1)]
            refused = False
        wrong += refused
        yield b"".join(lines), int(refused), refused


async def converse(address: str, said: bytes) -> bytes:
    """Everything that is answered."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as one:
        one.setblocking(False)
        while True:
            try:
                one.connect(address)
                break
            except BlockingIOError:  # the queue is full
                await asyncio.sleep(0.001)
        answer = b""
        try:
            await loop.sock_sendall(one, said)
            one.shutdown(socket.SHUT_WR)
            while part := await loop.sock_recv(one, 65536):
                answer += part
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was sent away before its last line
        return answer


async def neighbour(claim: Claim, done: asyncio.Event) -> tuple[int, float]:
    """A process of another claim: how often it was answered with its own numbers, and the longest wait, in seconds."""
    reader, writer = await asyncio.open_unix_connection(claim.address)
    answers, longest, executed = 0, 0.0, 0
    while not done.is_set() or not answers:
        executed += 1
        mine = {**WHOLE, "executions": {**WHOLE["executions"], "completed": executed}}
        began = time.monotonic()
        writer.write(json.dumps(mine).encode() + b"\n" + ASK)
        (told,) = json.loads(await asyncio.wait_for(reader.readline(), PATIENCE))["processes"]
        longest = max(longest, time.monotonic() - began)
        assert told["executions"]["completed"] == executed, told
        assert told["pid"] == WHOLE["pid"], told
        answers += 1
        await asyncio.sleep(0.25)  # nobody is read more often than ten times a second
    writer.close()
    await writer.wait_closed()
    return answers, longest


async def fuzz(folder: Path, examples: int, chance: random.Random) -> str:
    """Send them; what came of it."""
    abused, other = Claim(folder / "abused"), Claim(folder / "other")
    done = asyncio.Event()
    beside = asyncio.create_task(neighbour(other, done))
    todo = conversations(chance, examples)
    lines = wrong = talks = 0
    began = time.monotonic()

    async def worker() -> None:
        nonlocal lines, wrong, talks
        for said, refused, answered in todo:
            async with asyncio.timeout(PATIENCE):
                answer = await converse(abused.address, said)
            # whoever reports a core that another conversation has is refused, too
            sentence = json.loads(answer)["error"] if answer else ""
            assert bool(sentence) or not answered, f"no answer to {said!r}"
            lines, talks = lines + said.count(b"\n"), talks + 1
            before, wrong = wrong, wrong + refused
            if wrong // TELL_EACH > before // TELL_EACH:
                print(f"  {wrong:,} after {time.monotonic() - began:.0f} s", flush=True)

    await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
    took = time.monotonic() - began
    done.set()
    answers, longest = await beside
    assert not abused.serving.done()
    assert not abused.board.processes(), "nobody is connected any more"
    await asyncio.gather(abused.end(), other.end())
    return (
        f"{lines:,} lines in {talks:,} conversations, {wrong:,} of them wrong and told so, in {took:.0f} s:"
        f" {wrong / took:,.0f} a second; the other claim was answered {answers} times, within {1000 * longest:.0f} ms"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1_000_000, help="wrong lines")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    args = parser.parse_args()
    print(f"seed {args.seed}")
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(fuzz(Path(folder), args.examples, random.Random(args.seed))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
