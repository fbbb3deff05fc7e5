# shellcheck shell=bash
# A registry beside the nodes that were made here. Their containerd asks it first for every image, whatever
# registry the image's name says (kind/node/etc/containerd/certs.d), so that manifests keep their image names
# and pull policies where no other registry is in reach.

REGISTRY_CONTAINER=neuron-sim-registry
REGISTRY_PORT=${NEURON_SIM_REGISTRY_PORT:-5001}   # on 127.0.0.1

registry_image_name() { printf 'neuron-sim/registry:%s' "$REGISTRY_VERSION"; }

registry_up() {
  local image
  image=$(registry_image_name)
  if ! have_image "$image"; then
    registry_binary
    step "registry image" import_registry "$image"
  fi
  if [ "$(docker container inspect -f '{{.State.Running}}' $REGISTRY_CONTAINER 2> /dev/null)" != true ]; then
    step "registry on 127.0.0.1:$REGISTRY_PORT" run_registry "$image"
  fi
}

import_registry() {
  tar -c -C "$BIN" registry -C "$HACK/kind/registry" registry.yaml |
    docker import -c 'CMD ["/registry", "serve", "/registry.yaml"]' - "$1"
}

run_registry() {
  docker rm -f $REGISTRY_CONTAINER > /dev/null 2>&1 || true
  docker run -d --restart always --network kind --name $REGISTRY_CONTAINER -v "$STATE/registry:/data" \
    -p "127.0.0.1:$REGISTRY_PORT:5000" "$1"
}

registry_down() { docker rm -f $REGISTRY_CONTAINER > /dev/null 2>&1 || true; }

# registry_name IMAGE: its name there, which is the name less the registry's
registry_name() {
  local path=$1
  case $path in
    */*) case ${path%%/*} in *.* | *:* | localhost) path=${path#*/} ;; esac ;;
    *) path=library/$path ;;
  esac
  printf '127.0.0.1:%s/%s' "$REGISTRY_PORT" "$path"
}

# registry_push IMAGE [AS]: only changed layers travel
registry_push() {
  local there
  there=$(registry_name "${2:-$1}")
  docker tag "$1" "$there"
  docker push -q "$there"
  docker rmi "$there"
}

# --- stand-ins -------------------------------------------------------------------------------

# stand_ins: kind/images.txt says what stands in for what. Done once per content of that folder
stand_ins() {
  local key stamp
  key=$({ debian_image_name; tree_key kind/stand-ins kind/images.txt; } | short_hash)
  stamp=$STATE/registry/.stand-ins@$key
  [ ! -e "$stamp" ] || return 0
  debian_image
  step "stand-ins for public images (hack/kind/images.txt)" push_stand_ins
  rm -f "$STATE/registry/.stand-ins@"*
  touch "$stamp"
}

push_stand_ins() {
  local image target
  grep -vE '^[[:space:]]*(#|$)' "$HACK/kind/images.txt" | while read -r image target; do
    echo "$image <- $target"
    tar -c -C "$HACK/kind/stand-ins" . | docker_build --target "$target" \
      --build-arg "DEBIAN=$(debian_image_name)" -t "neuron-sim/stand-in-$target"
    registry_push "neuron-sim/stand-in-$target" "$image"
  done
}
