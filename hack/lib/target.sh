# shellcheck shell=bash
# Which cluster a command is for: $NEURON_SIM_CLUSTER (default neuron-sim) of ours, or, with --existing
# (or NEURON_SIM_EXISTING=1), the one of the current kubeconfig.

CLUSTER=${NEURON_SIM_CLUSTER:-neuron-sim}
EXISTING=${NEURON_SIM_EXISTING:-}

cluster_dir() { printf '%s/clusters/%s' "$CACHE" "$CLUSTER"; }

# use_cluster: from here on, kubectl and helm speak to it
use_cluster() {
  [ -z "$EXISTING" ] || return 0
  KUBECONFIG=$(cluster_dir)/kubeconfig
  export KUBECONFIG
  [ -e "$KUBECONFIG" ] ||
    die "there is no cluster $CLUSTER: make one with \`hack/cluster up --name $CLUSTER\`, or say --existing for the cluster of your current kubeconfig"
}

# prints it, and gets it where it is missing
kubectl_path() {
  with_lock cache kubernetes_binaries "$KUBERNETES_VERSION" kubectl
  printf '%s/kubectl' "$(kubernetes_bin "$KUBERNETES_VERSION")"
}

helm_path() {
  with_lock cache helm_binary
  printf '%s/helm' "$BIN"
}
