# shellcheck shell=bash
# To be sourced: a cluster of a benchmark's own with our images. It is gone when the script ends, unless
# NEURON_SIM_KEEP_CLUSTER=1 keeps it for the next run.

make_cluster() { # make_cluster NAME [ARGUMENT...]: made with these arguments of hack/cluster up; kubectl talks to it then
  local name=$1
  shift
  make image
  # shellcheck disable=SC2064  # the name of now
  trap "[ -n '${NEURON_SIM_KEEP_CLUSTER:-}' ] || hack/cluster down --name $name" EXIT
  hack/cluster up --name "$name" "$@"
  # shellcheck disable=SC2046  # a name each
  hack/cluster load --name "$name" $(hack/image --names)
  eval "$(hack/cluster env --name "$name")"
}

install_chart() { # install_chart [ARGUMENT...]: the chart, with these arguments of helm
  helm upgrade --install neuron-sim charts/neuron-sim --namespace neuron-sim-system --create-namespace --wait \
    --timeout 5m "$@"
}
