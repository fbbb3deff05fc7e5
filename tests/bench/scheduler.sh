#!/usr/bin/env bash
# scheduler.sh ARGUMENT...: scheduler.py with these arguments, on a cluster of its own whose scheduler and controllers may ask
# the API server as often as they like. The cluster is gone afterwards, unless NEURON_SIM_KEEP_CLUSTER=1 keeps it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=neuron-sim-scheduler
trap '[ -n "${NEURON_SIM_KEEP_CLUSTER:-}" ] || hack/cluster down --name $name' EXIT
hack/cluster up --name $name --workers 0
eval "$(hack/cluster env --name $name)"
# shellcheck source=tests/bench/limits.sh
. tests/bench/limits.sh
lift_limits $name
.venv/bin/python tests/bench/scheduler.py --container "$(docker inspect -f '{{.Id}}' $name-control-plane)" "$@"
