#!/usr/bin/env bash
# gangs.sh ARGUMENT...: gangs.py with these arguments, on a cluster of its own: four workers that are one UltraServer. The
# cluster is gone afterwards, unless NEURON_SIM_KEEP_CLUSTER=1 keeps it for the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=neuron-sim-gangs
# shellcheck source=tests/bench/cluster.sh
. tests/bench/cluster.sh
make_cluster $name --workers 4
install_chart --set pools.default.instanceType=trn2u.48xlarge,pools.default.devices=chips,pools.default.partitions=none
.venv/bin/python tests/bench/gangs.py "$@"
