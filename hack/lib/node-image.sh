# shellcheck shell=bash
# The node image: the one that the kind project publishes, where a registry is in reach; else one made here.

PAUSE_IMAGE=neuron-sim/pause:1   # named in kind/node/etc/containerd/config.toml

DEBIAN_PACKAGES=systemd,runc,iproute2,iptables,nftables,kmod,mount,procps,busybox-static

# node_image VERSION: makes sure that one is there, and prints its name
node_image() {
  local version=$1 image=kindest/node:$1
  if published "$image"; then
    say "-- node image $image is in reach"
    have_image "$image" || step "docker pull $image" docker pull -q "$image"
  else
    image=$(made_node_image "$version")
    if ! have_image "$image"; then
      say "-- node image kindest/node:$version is not in reach (asked for 3 s): making one here, once, which takes about 20 minutes on two cores"
      node_binaries "$version"
      debian_image
      step "node image $image" build_node_image "$version" "$image"
    fi
  fi
  printf '%s' "$image"
}

# its name tells all that went into it
made_node_image() {
  printf 'neuron-sim/kind-node:%s-%s' "$1" "$({
    debian_image_name
    tree_key kind/node kind/pause
    echo "$CONTAINERD_VERSION $CRICTL_VERSION $CNI_VERSION"
  } | short_hash)"
}

is_made_here() { case $1 in neuron-sim/kind-node:*) ;; *) return 1 ;; esac; }

debian_image_name() { printf 'neuron-sim/kind-debian:%s-%s' "$DEBIAN_SUITE" "$(echo "$DEBIAN_PACKAGES" | short_hash)"; }

debian_image() {
  local name
  name=$(debian_image_name)
  ! have_image "$name" || return 0
  need mmdebstrap mmdebstrap debian-archive-keyring
  step "Debian $DEBIAN_SUITE" debian_tree "$name" essential "$DEBIAN_PACKAGES"
}

# debian_tree IMAGE VARIANT PACKAGES: the name comes last, what docker imported of a tree that broke off has none
debian_tree() {
  local id
  id=$(mmdebstrap --quiet --variant="$2" --include="$3" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$DEBIAN_SUITE" - | docker import -c 'CMD ["bash"]' -)
  docker tag "$id" "$1"
}

# from kind/node and the binaries that its Dockerfile names
docker_build_node() {
  local version=$1; shift
  tar -c -C "$HACK/kind/node" . -C "$(kubernetes_bin "$version")" kube-proxy kubeadm kubelet kubectl \
    -C "$BIN" containerd ctr containerd-shim-runc-v2 crictl host-local loopback ptp portmap |
    docker_build --build-arg "KUBERNETES=$version" --build-arg "DEBIAN=$(debian_image_name)" "$@"
}

build_node_image() {
  local version=$1 target=$2 image name bin images base id kubernetes
  kubernetes=$(kubernetes_bin "$version")
  images=("$(debian_image_name)")
  for image in $("$kubernetes/kubeadm" config images list --kubernetes-version "$version"); do
    name=${image##*/} name=${name%%:*} bin=$kubernetes
    case $name in
      kube-proxy) docker_build_node "$version" --target kube-proxy -t "$image"; images+=("$image"); continue ;;
      pause) image=$PAUSE_IMAGE bin=$BIN ;;
    esac
    tar -c -C "$bin" "$name" | docker import -c "ENTRYPOINT [\"/$name\"]" -c 'ENV PATH=/' - "$image"
    images+=("$image")
  done

  base=$target-base
  docker_build_node "$version" --target node -t "$base"
  # the images go into containerd's store as they are, and are unpacked on first use
  id=$(docker run -d --network none --entrypoint containerd "$base")
  for _ in $(seq 40); do ! docker exec "$id" ctr version > /dev/null 2>&1 || break; sleep 0.5; done
  docker save "${images[@]}" | docker exec -i "$id" ctr -n k8s.io images import --no-unpack --digests -
  docker stop "$id"
  docker commit -c 'ENTRYPOINT ["/usr/local/bin/entrypoint"]' "$id" "$target-new"
  docker rm "$id"
  docker run --rm --network none --privileged --entrypoint true "$target-new" || {
    echo "this docker daemon cannot run privileged containers. If root lacks CAP_SYS_RESOURCE here, start the daemon with"
    echo "--add-runtime fit=$BIN/runc-fit --default-runtime fit (see hack/kind/runc-fit/main.go)"
    return 1
  }
  docker tag "$target-new" "$target"
  # names of others, for what was made here, shall not stay in the user's daemon
  docker rmi "$target-new" "$base" "${images[@]:1}"
}
