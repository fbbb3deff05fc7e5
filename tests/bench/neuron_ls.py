"""Time `neuron-ls` and `nccom-test` inside a busybox container, beside `busybox true` in the same container.

`make bench` runs this on the demo cluster's pod. All commands are started from outside through the container's
namespaces, in turn, so that the way in costs all the same and the difference is the tool's own. CPU time tells what a
command costs also where other work delays it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def kubectl(*arguments: str) -> str:
    return subprocess.run([REPOSITORY / "hack/kubectl", *arguments], capture_output=True, text=True, check=True).stdout


def container_process(pod: str) -> str:
    """The pid on this machine of the pod's first container."""
    status = json.loads(kubectl("get", "pod", pod, "-o", "json"))["status"]["containerStatuses"][0]
    identity = status["containerID"].rpartition("/")[2]
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if identity in path.read_text():
                return path.parent.name
        except OSError:
            continue  # a process that has just ended
    raise SystemExit(f"the container of pod {pod} does not run on this machine")


def seconds(command: list[str]) -> tuple[float, float]:
    """Of time, and of CPU."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    taken, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pod", default="neuron-inference")
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args()
    enter = [
        "nsenter",
        "--target",
        container_process(args.pod),
        "--mount",
        "--uts",
        "--ipc",
        "--net",
        "--pid",
        "--root",
        "--",
    ]
    commands = {
        "busybox true": ["/bin/busybox", "true"],
        "neuron-ls": ["/usr/local/bin/neuron-ls"],
        "nccom-test": ["/opt/aws/neuron/bin/nccom-test", "-r", "4", "-b", "8", "-e", "8", "allr"],
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(args.runs):
        for name, command in commands.items():
            taken[name].append(seconds([*enter, *command]))
    print("| command | p50 ms | p99 ms | CPU, p50 ms |\n| --- | --- | --- | --- |")
    middle: dict[str, tuple[float, float]] = {}
    for name, figures in taken.items():
        times, cpu = ([1000 * figure for figure in column] for column in zip(*figures, strict=True))
        middle[name] = statistics.median(times), statistics.median(cpu)
        print(
            f"| {name} | {middle[name][0]:.1f} | {statistics.quantiles(times, n=100)[98]:.1f} | {middle[name][1]:.1f} |"
        )
    print()
    for name in ("neuron-ls", "nccom-test"):
        time_above, cpu_above = (a - b for a, b in zip(middle[name], middle["busybox true"], strict=True))
        print(f"{name} above busybox true: {time_above:.1f} ms, {cpu_above:.1f} of CPU (p50 of {args.runs} runs)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
