# shellcheck shell=bash
# For large fleets, to be sourced: client limits lifted, nodes without leases, no kube-proxy on nodes without a machine.

lift_limits() { # lift_limits CLUSTER: of the cluster that kubectl talks to
  local limits=(--kube-api-qps=1000 --kube-api-burst=2000)
  add_flags "$1" kube-controller-manager "${limits[@]}" --node-monitor-grace-period=8760h
  add_flags "$1" kube-scheduler "${limits[@]}"
  kubectl -n kube-system patch daemonset kube-proxy --type=merge -p '{"spec":{"template":{"spec":{"affinity":{"nodeAffinity":
    {"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":
    [{"key":"type","operator":"NotIn","values":["kwok"]}]}]}}}}}}}'
  # the kubelet sees the files a while later, and until then the pods of before are ready
  until [ "$(kubectl -n kube-system get pods -l tier=control-plane \
    -o jsonpath='{range .items[*]}{.spec.containers[*].command}{"\n"}{end}' | grep -c -- --kube-api-burst=2000)" = 2 ]; do
    sleep 1
  done
  kubectl -n kube-system wait --for=condition=Ready pods -l tier=control-plane --timeout=3m
}

add_flags() { # add_flags CLUSTER PROGRAM FLAG...
  local node=$1-control-plane file=/etc/kubernetes/manifests/$2.yaml flag
  shift 2
  for flag in "$@"; do
    docker exec "$node" sh -c "grep -qe '$flag' $file || sed -i '/^    - --kubeconfig=/a\\    - $flag' $file"
  done
}
