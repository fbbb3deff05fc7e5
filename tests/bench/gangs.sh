#!/usr/bin/env bash
# gangs.sh ARGUMENT...: gangs.py with these arguments, on a cluster of its own: four workers that are one UltraServer. The
# cluster is gone afterwards, unless NEURON_SIM_KEEP_CLUSTER=1 keeps it for the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=neuron-sim-gangs
make image
trap '[ -n "${NEURON_SIM_KEEP_CLUSTER:-}" ] || hack/cluster down --name $name' EXIT
hack/cluster up --name $name --workers 4
# shellcheck disable=SC2046  # a name each
hack/cluster load --name $name $(hack/image --names)
eval "$(hack/cluster env --name $name)"
helm upgrade --install neuron-sim charts/neuron-sim --namespace neuron-sim-system --create-namespace --wait --timeout 5m \
  --set pools.default.instanceType=trn2u.48xlarge,pools.default.devices=chips,pools.default.partitions=none
.venv/bin/python tests/bench/gangs.py "$@"
