"""Measure our node agent, and the Go reference driver beside it, in one run.

`make bench` runs this. Both drivers run as plain processes of this machine against the API server of a kind
cluster, each in folders of its own, and `dra_bench.py` plays the kubelet; so the figures are of the drivers alone.
They publish the same number of devices, and claims have admin access, because more claims than devices are in
flight and our agent refuses to give a device twice. What is below /run on a node is on tmpfs here, too.

The Go driver is kubernetes-sigs/dra-example-driver: build `cmd/dra-example-kubeletplugin` of a checkout and name
the binary with --go-driver. Without it, only ours is measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = "neuron-sim-bench"
NODE = "bench"
DEVICES = 16


def run(*command: str, input: str | None = None, **variables: str) -> str:
    environment = {**os.environ, **variables}
    return subprocess.run(command, input=input, capture_output=True, text=True, check=True, env=environment).stdout


def ours(folder: Path, kubeconfig: Path) -> dict[str, Any]:
    """The agent standing alone, as `neuron-sim agent --instance-type trn2.48xlarge` starts it."""
    driver = "neuron.aws.com"
    flags = {
        "node-name": NODE,
        "driver-name": driver,
        "instance-type": "trn2.48xlarge",
        "kubeconfig": kubeconfig,
        "plugins-dir": folder / "plugins",
        "registry-dir": folder / "registry",
        "cdi-dir": folder / "cdi",
        "state-dir": folder / "state",
        "run-dir": folder / "run",
        "runtime-tree": folder / "tree",
        "metrics-port": 18080,
    }
    (folder / "tree/bin").mkdir(parents=True)
    return {
        "label": "neuron-sim agent",
        "driver": driver,
        "pool": NODE,
        "devices": f"neuron-device-{{0..{DEVICES - 1}}}",
        "dra_socket": str(folder / "plugins" / driver / "dra.sock"),
        "reg_socket": str(folder / "registry" / f"{driver}-reg.sock"),
        "cdi_dir": str(folder / "cdi"),
        "start_cmd": " ".join([sys.executable, "-m", "neuron_dra_driver", *(f"--{k}={v}" for k, v in flags.items())]),
        "log": str(folder / "driver.log"),
        "version": "this tree",
        "admin_access": True,
    }


def go(folder: Path, kubeconfig: Path, binary: Path, version: str) -> dict[str, Any]:
    """The Go reference driver with its client limits lifted."""
    driver = "gpu.example.com"
    flags = {
        "node-name": NODE,
        "driver-name": driver,
        "num-devices": DEVICES,
        "kubeconfig": kubeconfig,
        "kube-api-qps": 10000,
        "kube-api-burst": 10000,
        "kubelet-plugins-directory-path": folder / "plugins",
        "kubelet-registrar-directory-path": folder / "registry",
        "cdi-root": folder / "cdi",
        "healthcheck-port": -1,
        "metrics-port": -1,
    }
    return {
        "label": "Go dra-example-driver",
        "driver": driver,
        "pool": NODE,
        "devices": f"gpu-{{0..{DEVICES - 1}}}",
        "dra_socket": str(folder / "plugins" / driver / "dra.sock"),
        "reg_socket": str(folder / "registry" / f"{driver}-reg.sock"),
        "cdi_dir": str(folder / "cdi"),
        "start_cmd": " ".join([str(binary), *(f"--{k}={v}" for k, v in flags.items())]),
        "log": str(folder / "driver.log"),
        "version": version,
        "notes": "client limits lifted; health and metrics ports off",
        "admin_access": True,
    }


def prepare(folder: Path, tmpfs: Path) -> Path:
    for name in ("plugins/neuron.aws.com", "plugins/gpu.example.com", "registry", "state"):
        (folder / name).mkdir(parents=True)
    for name in ("cdi", "run"):
        (tmpfs / name).mkdir(parents=True)
        (folder / name).symlink_to(tmpfs / name)
    return folder


def device_class(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": name},
        "spec": {"selectors": [{"cel": {"expression": f"device.driver == '{name}'"}}]},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--go-driver", type=Path, help="the Go reference driver's binary")
    parser.add_argument("--go-version", default="", help="what it was built from, for the record")
    parser.add_argument("--kubeconfig", type=Path, help="use this API server instead of a cluster made for it")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of 64 new claims, for each number in flight")
    parser.add_argument("--held", type=int, default=1000, help="claims to hold, to see what grows")
    parser.add_argument("--foreign", type=int, default=3000, help="claims of other nodes")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build/bench/drivers.json")
    args = parser.parse_args()

    if args.kubeconfig:
        return measure(args)
    subprocess.run([REPOSITORY / "hack/cluster", "up", "--name", CLUSTER], check=True)
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".kubeconfig") as file:
            kubectl = str(REPOSITORY / "hack/kubectl")
            file.write(run(kubectl, "config", "view", "--raw", "--output=json", NEURON_SIM_CLUSTER=CLUSTER))
            file.flush()
            args.kubeconfig = Path(file.name)
            return measure(args)
    finally:
        subprocess.run([REPOSITORY / "hack/cluster", "down", "--name", CLUSTER], check=True)


def measure(args: argparse.Namespace) -> int:
    harness = [sys.executable, str(Path(__file__).with_name("dra_bench.py"))]

    def apply(obj: dict[str, Any]) -> None:
        kubectl = [str(REPOSITORY / "hack/kubectl"), "--existing", "apply", "-f", "-"]
        run(*kubectl, input=json.dumps(obj), KUBECONFIG=str(args.kubeconfig))

    apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    # as the image has it
    run(sys.executable, "-m", "compileall", "-q", str(REPOSITORY / "dra_driver"), str(REPOSITORY / "device_model"))
    with tempfile.TemporaryDirectory(prefix="dra-") as disk, tempfile.TemporaryDirectory(dir="/dev/shm") as tmpfs:
        targets = [ours(prepare(Path(disk) / "a", Path(tmpfs) / "a"), args.kubeconfig)]
        if args.go_driver:
            folder = prepare(Path(disk) / "b", Path(tmpfs) / "b")
            targets.append(go(folder, args.kubeconfig, args.go_driver, args.go_version))
        for target in targets:
            apply(device_class(target["driver"]))
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.unlink(missing_ok=True)
        options = {
            "kubeconfig": args.kubeconfig,
            "node": NODE,
            "reps": args.reps,
            "rounds": args.rounds,
            "held": args.held,
            "foreign": args.foreign,
            "idle-seconds": 10,
            "out": args.out,
        }
        command = [*harness, "grpc", *(f"--{name}={value}" for name, value in options.items())]
        for target in targets:
            command += ["--target", json.dumps(target)]
        status = subprocess.run(command, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1"}).returncode
        if args.out.exists():
            subprocess.run([*harness, "table", str(args.out)], check=True)
            print()
            subprocess.run([*harness, "goals", str(args.out)], check=True)
        for target in targets if status else ():
            print(target["label"], Path(target["log"]).read_text()[-3000:], file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
