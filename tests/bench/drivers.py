"""Measure our node agent, and the Go reference driver beside it, in one run.

`make bench` runs this. Both drivers run as plain processes of this machine against the API server of a kind
cluster, each in folders of its own, and `dra_bench.py` plays the kubelet; so the figures are of the drivers alone.
They publish the same number of devices, and claims have admin access, because more claims than devices are in
flight and our agent refuses to give a device twice.

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


def kubectl(*arguments: str, input: str | None = None) -> str:
    command = ["env", f"NEURON_SIM_CLUSTER={CLUSTER}", str(REPOSITORY / "hack/kubectl"), *arguments]
    return subprocess.run(command, input=input, capture_output=True, text=True, check=True).stdout


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


def prepare(folder: Path) -> Path:
    for name in ("plugins/neuron.aws.com", "plugins/gpu.example.com", "registry", "cdi", "state", "run"):
        (folder / name).mkdir(parents=True)
    return folder


def device_class(name: str) -> str:
    expression = f"device.driver == '{name}'"
    return json.dumps(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": name},
            "spec": {"selectors": [{"cel": {"expression": expression}}]},
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--go-driver", type=Path, help="the Go reference driver's binary")
    parser.add_argument("--go-version", default="", help="what it was built from, for the record")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build/bench/drivers.json")
    args = parser.parse_args()

    subprocess.run([REPOSITORY / "hack/cluster", "up", "--name", CLUSTER], check=True)
    try:
        kubeconfig = Path(tempfile.mkstemp(suffix=".kubeconfig")[1])
        kubeconfig.write_text(kubectl("config", "view", "--raw"))
        kubectl(
            "apply",
            "-f",
            "-",
            input=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}),
        )
        with tempfile.TemporaryDirectory(prefix="dra-") as scratch:
            targets = [ours(prepare(Path(scratch) / "a"), kubeconfig)]
            if args.go_driver:
                targets.append(go(prepare(Path(scratch) / "b"), kubeconfig, args.go_driver, args.go_version))
            for target in targets:
                kubectl("apply", "-f", "-", input=device_class(target["driver"]))
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.unlink(missing_ok=True)
            command = [
                sys.executable,
                str(Path(__file__).with_name("dra_bench.py")),
                "grpc",
                "--kubeconfig",
                str(kubeconfig),
                "--node",
                NODE,
                "--reps",
                str(args.reps),
                "--idle-seconds",
                "10",
                "--out",
                str(args.out),
            ]
            for target in targets:
                command += ["--target", json.dumps(target)]
            status = subprocess.run(command, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1"}).returncode
            subprocess.run(
                [sys.executable, str(Path(__file__).with_name("dra_bench.py")), "table", str(args.out)],
                check=True,
            )
            for target in targets if status else ():
                print(target["label"], Path(target["log"]).read_text()[-3000:], file=sys.stderr)
        kubeconfig.unlink()
        return status
    finally:
        subprocess.run([REPOSITORY / "hack/cluster", "down", "--name", CLUSTER], check=True)


if __name__ == "__main__":
    sys.exit(main())
