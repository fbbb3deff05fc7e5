# shellcheck shell=bash
# Prometheus and promtool, from the Debian package: unpacked into the cache, nothing is installed. apt verifies it.

prometheus_binaries() {
  ! have_binary "$BIN" promtool "$PROMETHEUS_VERSION" || return 0   # the later of the two
  if ! command -v apt-get > /dev/null || ! command -v dpkg > /dev/null; then
    die "promtool is taken from Debian's package prometheus, and this machine has no apt-get: put prometheus and promtool $PROMETHEUS_VERSION into $BIN, and \`touch $BIN/.{prometheus,promtool}@$PROMETHEUS_VERSION\`"
  fi
  step "Prometheus $PROMETHEUS_VERSION (Debian's package, unpacked into the cache)" unpack_prometheus
}

unpack_prometheus() {
  local new name
  new=$(mktemp -d "$BIN/.new-XXXXXX")
  (cd "$new" && { download_prometheus || { as_root apt-get update && download_prometheus; }; })
  dpkg -x "$new"/prometheus_*.deb "$new"
  for name in prometheus promtool; do keep_binary "$BIN" "$name" "$PROMETHEUS_VERSION" "$new/usr/bin/$name"; done
  rm -rf "$new"
}

# other distributions have other versions, which read the same rules
download_prometheus() { apt-get download "prometheus=$PROMETHEUS_VERSION" || apt-get download prometheus; }

promtool_path() {
  with_lock cache prometheus_binaries
  printf '%s/promtool' "$BIN"
}
