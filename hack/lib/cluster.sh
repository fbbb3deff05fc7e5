# shellcheck shell=bash disable=SC2034  # LOADED is for callers
# A cluster's life: up, load, down. It is kind's, whichever node image it runs.

kind() { "$BIN/kind" "$@"; }
kubectl() { "$(kubernetes_bin "$KUBERNETES_VERSION")/kubectl" "$@"; }

cluster_exists() { kind get clusters -q 2> /dev/null | grep -qxF "$CLUSTER"; }

cluster_nodes() { kind get nodes --name "$CLUSTER" 2> /dev/null; }

# do its nodes run an image made here? Then the registry beside them serves their images
cluster_is_made_here() {
  local node
  node=$(cluster_nodes | head -n 1)
  [ -n "$node" ] && is_made_here "$(docker container inspect -f '{{.Config.Image}}' "$node")"
}

# cluster_up WORKERS VERSION
cluster_up() {
  local workers=$1 version=$2 start=$SECONDS dir image
  dir=$(cluster_dir)
  need_docker
  need_sysctl fs.inotify.max_user_instances 1024 "the kubelets of several nodes run out of them"
  need_sysctl fs.inotify.max_user_watches 524288 "the kubelets of several nodes run out of them"
  with_lock cache cluster_tools
  if cluster_exists && [ -e "$dir/complete" ]; then
    resume_cluster
  else
    ! cluster_exists || step "removing what is left of an interrupted start" kind delete cluster --name "$CLUSTER"
    image=$(with_lock cache node_image "$version")
    rm -rf "$dir"
    mkdir -p "$dir"
    step "cluster $CLUSTER: control plane and $workers worker(s), $version" create_cluster "$workers" "$image"
    touch "$dir/complete"
  fi
  ! cluster_is_made_here || with_lock cache local_images
  say "cluster $CLUSTER is up ($((SECONDS - start)) s): hack/kubectl get nodes, or KUBECONFIG=$dir/kubeconfig"
}

cluster_tools() {
  kind_binary
  kubernetes_binaries "$KUBERNETES_VERSION" kubectl
}

local_images() {
  registry_up
  stand_ins
}

create_cluster() {
  local workers=$1 image=$2 i
  # a copy: nodes that start again want what they had, though the repository may be gone
  cp -r "$HACK/kind/patches" "$(cluster_dir)"
  {
    cat "$HACK/kind/cluster.yaml"
    printf 'nodes:\n  - role: control-plane\n    extraMounts: [{hostPath: "%s", containerPath: /kind/patches, readOnly: true}]\n' \
      "$(cluster_dir)/patches"
    for ((i = 0; i < workers; i++)); do printf '  - role: worker\n'; done
  } > "$(cluster_dir)/kind.yaml"
  kind create cluster --name "$CLUSTER" --image "$image" --config "$(cluster_dir)/kind.yaml" \
    --kubeconfig "$(cluster_dir)/kubeconfig" --wait 3m
  nodes_ready
}

nodes_ready() {
  kubectl --kubeconfig "$(cluster_dir)/kubeconfig" wait --for=condition=Ready node --all --timeout=3m
}

# it is there: its nodes may have stopped with the machine or the daemon
resume_cluster() {
  local node stopped=()
  for node in $(cluster_nodes); do
    [ "$(docker container inspect -f '{{.State.Running}}' "$node")" = true ] || stopped+=("$node")
  done
  [ ${#stopped[@]} -eq 0 ] || step "starting the nodes of $CLUSTER again" docker start "${stopped[@]}"
  step "nodes of $CLUSTER ready (it was up before; \`down\` first for another shape or version)" \
    retry 60 nodes_ready
}

# retry SECONDS COMMAND...
retry() {
  local until=$((SECONDS + $1)); shift
  until "$@"; do [ $SECONDS -lt $until ] || return 1; sleep 1; done
}

cluster_down() {
  with_lock cache kind_binary
  docker info > /dev/null 2>&1 || die "no docker daemon answers, so nothing of $CLUSTER runs"
  step "deleting cluster $CLUSTER" kind delete cluster --name "$CLUSTER" --kubeconfig "$(cluster_dir)/kubeconfig"
  rm -rf "$(cluster_dir)"
  if [ -z "$(kind get clusters -q 2> /dev/null)" ]; then
    registry_down
    [ ! -e "$STATE/dockerd.pid" ] || say "the docker daemon goes on running; hack/cluster stop-docker stops the one we started"
  fi
}

# cluster_load IMAGE...: so that a pod with pull policy IfNotPresent gets this very one, on every node. LOADED says
# whether a node may have run another one of that name
cluster_load() {
  local image nodes
  LOADED=
  for image in "$@"; do
    have_image "$image" ||
      die "the docker daemon has no image $image: build it (\`make image\`) or pull it first"
    if cluster_is_made_here; then
      # a node that has none of that name asks there when a pod wants it
      step "serving $image beside the nodes" with_lock cache registry_push "$image"
      mapfile -t nodes < <(nodes_with_another "$image")
      [ ${#nodes[@]} -eq 0 ] || step "loading $image" pull_on "$image" "${nodes[@]}"
      LOADED+=${nodes[*]}
    elif nodes_have "$image"; then
      say "ok $image is loaded already"
    else
      step "loading $image" kind load docker-image --name "$CLUSTER" "$image"
      LOADED=1
    fi
  done
}

image_id() { docker image inspect -f '{{.Id}}' "$1"; }

# image_on NODE IMAGE: the id of what the node has under this name, if it has any
image_on() { docker exec "$1" crictl inspecti -o go-template --template '{{.status.id}}' "$2" 2> /dev/null; }

nodes_have() {
  local node
  for node in $(cluster_nodes); do
    [ "$(image_on "$node" "$1")" = "$(image_id "$1")" ] || return 1
  done
}

nodes_with_another() {
  local node found
  for node in $(cluster_nodes); do
    if found=$(image_on "$node" "$1") && [ "$found" != "$(image_id "$1")" ]; then echo "$node"; fi
  done
}

# pull_on IMAGE NODE...
pull_on() {
  local image=$1 node pids=() pid; shift
  for node in "$@"; do
    docker exec "$node" crictl pull "$image" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid"; done
}

# existing_cluster_load IMAGE...: kind clusters of others can be loaded; elsewhere a registry is the way
existing_cluster_load() {
  local context
  with_lock cache cluster_tools
  context=$(kubectl config current-context)
  CLUSTER=${context#kind-}
  if [ "$context" = "$CLUSTER" ] || [ -z "$(cluster_nodes)" ]; then
    die "cannot load images into the cluster of context $context: push $* to a registry that its nodes reach, and set the chart's image values to that name"
  fi
  cluster_load "$@"
}
