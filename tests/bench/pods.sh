#!/usr/bin/env bash
# pods.sh [GO_DRIVER] [ARGUMENT...]: how long a pod with a claim takes to be Ready beside one without, by real kubelet and
# scheduler, on a cluster of its own with the chart. GO_DRIVER is the binary of dra-example-driver's kubelet plugin, which
# then runs on the same node and offers as many devices. ARGUMENTs are dra_bench.py's. The cluster is gone afterwards,
# unless NEURON_SIM_KEEP_CLUSTER=1 keeps it for the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=neuron-sim-pods node=$name-worker
go_driver=
case ${1:-} in '' | -*) ;; *) go_driver=$1; shift ;; esac
# shellcheck source=tests/bench/cluster.sh
. tests/bench/cluster.sh
make_cluster $name
# 16 devices, as the other driver has, and nothing else
install_chart --set pools.default.partitions=none,efa.enabled=false

# process PATTERN: of the node's processes, by the machine's numbers
process() { docker top "$node" -eo pid,args | awk -v pattern="$1" '$0 ~ pattern {print $1; exit}'; }

# target LABEL DRIVER DEVICES PATTERN
target() {
  local pid
  pid=$(process "$4")
  [ -n "$pid" ] || { echo "no process of $1 on $node: is its pod running?" >&2; return 1; }
  printf '{"label": "%s", "driver": "%s", "pool": "%s", "devices": "%s", "pid": %d}' "$1" "$2" "$node" "$3" "$pid"
}

targets=(--target "$(target "neuron-sim agent" neuron.aws.com "neuron-device-{0..15}" "-m neuron_dra_driver")")
if [ -n "$go_driver" ]; then
  image=neuron-sim/bench-go-driver:1
  folder=$(mktemp -d)
  cp "$go_driver" "$folder/driver"
  printf 'FROM %s\nUSER 0\nCOPY driver /driver\nENTRYPOINT ["/driver"]\n' "$(hack/image --names | head -n 1)" > "$folder/Dockerfile"
  DOCKER_BUILDKIT=0 docker build --quiet -t $image "$folder"
  rm -r "$folder"
  hack/cluster load --name $name $image
  kubectl apply -f tests/bench/go_driver.yaml
  kubectl -n bench rollout status daemonset/go-driver --timeout=2m
  targets+=(--target "$(target "Go dra-example-driver" gpu.example.com "gpu-{0..15}" "^ *[0-9]+ +/driver")")
fi
mkdir -p build/bench
rm -f build/bench/pods.json
# turns are short, since the machine's pace changes within minutes
.venv/bin/python tests/bench/dra_bench.py pod --kubeconfig "$KUBECONFIG" --node $node --image busybox \
  --reps 9 --waves 1:4,16:16 --out build/bench/pods.json "${targets[@]}" "$@"
.venv/bin/python tests/bench/dra_bench.py table build/bench/pods.json
