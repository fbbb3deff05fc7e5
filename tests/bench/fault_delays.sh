#!/usr/bin/env bash
# fault_delays.sh ARGUMENT...: fault_delays.py with these arguments, on a cluster of its own with the chart. The cluster is
# gone afterwards, unless NEURON_SIM_KEEP_CLUSTER=1 keeps it for the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=neuron-sim-faults
# shellcheck source=tests/bench/cluster.sh
. tests/bench/cluster.sh
make_cluster $name
install_chart
.venv/bin/python tests/bench/fault_delays.py "$@"
