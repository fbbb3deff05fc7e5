# shellcheck shell=bash
# KWOK's image for virtual nodes (chart value virtualNodes). Where no container registry is in reach it is made of KWOK's
# Go module and served beside the nodes under its own name; elsewhere the nodes pull it themselves.

kwok_image_name() { printf 'registry.k8s.io/kwok/kwok:%s' "$KWOK_VERSION"; }

kwok_up() {
  local stamp
  stamp=$STATE/registry/.kwok@$KWOK_VERSION
  if ! cluster_is_made_here; then say "ok the nodes pull $(kwok_image_name)"; return; fi
  registry_up
  [ ! -e "$stamp" ] || { say "ok $(kwok_image_name) is served beside the nodes"; return 0; }
  build_missing "$BIN" sigs.k8s.io/kwok "$KWOK_VERSION" "" "" kwok=sigs.k8s.io/kwok/cmd/kwok
  step "image $(kwok_image_name)" push_kwok
  touch "$stamp"
}

push_kwok() {
  local image=neuron-sim/kwok:$KWOK_VERSION
  tar -c -C "$BIN" kwok | docker import -c 'ENTRYPOINT ["/kwok"]' - "$image"
  registry_push "$image" "$(kwok_image_name)"
}
