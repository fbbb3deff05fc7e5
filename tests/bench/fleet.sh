#!/usr/bin/env bash
# fleet.sh ARGUMENT...: fleet.py with these arguments, on a cluster of its own as large fleets want it (docs/virtual-nodes.md):
# nodes without leases, higher client limits, no kube-proxy on virtual nodes. The cluster is gone afterwards, unless
# NEURON_SIM_KEEP_CLUSTER=1 keeps it for the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=neuron-sim-fleet
# shellcheck source=tests/bench/cluster.sh
. tests/bench/cluster.sh
make_cluster $name --workers 0
hack/cluster kwok --name $name

# shellcheck source=tests/bench/limits.sh
. tests/bench/limits.sh
lift_limits $name

values=(virtualNodes.enabled=true virtualNodes.kwok.leaseSeconds=0 virtualNodes.kwok.resources.limits.memory=2Gi)
install_chart "${values[@]/#/--set=}"
# fleet.py runs these two itself
kubectl -n neuron-sim-system scale deployment neuron-sim-operator neuron-sim-virtual-agent --replicas=0
kubectl -n kube-system wait --for=condition=Ready pods -l tier=control-plane --timeout=3m
.venv/bin/python tests/bench/fleet.py --container "$(docker inspect -f '{{.Id}}' $name-control-plane)" "$@"
