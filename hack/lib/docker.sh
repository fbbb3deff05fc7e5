# shellcheck shell=bash
# The docker daemon: a running one, else our own, with its state in the cache.

need_docker() {
  if ! command -v docker > /dev/null || { ! docker info > /dev/null 2>&1 && [ ! -x /usr/sbin/dockerd ]; }; then
    need dockerd docker.io
  fi
  docker info > /dev/null 2>&1 || with_lock cache start_dockerd
}

start_dockerd() {
  ! docker info > /dev/null 2>&1 || return 0   # someone else did, while we waited
  own_binary runc-fit
  say "!! no docker daemon answers: starting one of our own (state: $STATE; stop it with hack/cluster stop-docker)"
  # dockerd turns this on itself, but then also makes DROP the policy of iptables' FORWARD chain
  need_sysctl net.ipv4.ip_forward 1 "containers reach the network through this machine"
  step "dockerd" run_dockerd
}

run_dockerd() {
  # 9: the lock's file, which a daemon must not hold on to
  PATH=/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/sbin:/bin as_root setsid nohup dockerd \
    --data-root "$STATE/docker" --bridge none --exec-root /run/neuron-sim-docker --pidfile "$STATE/dockerd.pid" \
    --add-runtime fit="$BIN/runc-fit" --default-runtime fit > "$STATE/dockerd.log" 2>&1 < /dev/null 9>&- &
  for _ in $(seq 60); do ! docker info > /dev/null 2>&1 || return 0; sleep 0.5; done
  tail -5 "$STATE/dockerd.log"
  echo "dockerd did not start"
  return 1
}

stop_dockerd() {
  local pid
  pid=$(cat "$STATE/dockerd.pid" 2> /dev/null || true)
  if [ -z "$pid" ] || [ "$(cat "/proc/$pid/comm" 2> /dev/null)" != dockerd ]; then
    say "no docker daemon of ours runs"
    return 0
  fi
  docker network rm kind > /dev/null 2>&1 || true   # and its bridge
  as_root kill -TERM "$pid"
  for _ in $(seq 60); do [ -d "/proc/$pid" ] || { say "our docker daemon has stopped"; return 0; }; sleep 0.5; done
  die "our dockerd (pid $pid) does not stop"
}

# docker_build OPTION...: the context comes on standard input. The classic builder, as Debian's daemon
# has no other and nothing here needs one
docker_build() { DOCKER_BUILDKIT=0 docker build --quiet --rm --network host "$@" -; }

have_image() { docker image inspect "$1" > /dev/null 2>&1; }

# published IMAGE: can it be had from a registry, or is it here already? Quick: 3 s at most
published() {
  [ -z "${NEURON_SIM_OFFLINE:-}" ] || return 1
  have_image "$1" || timeout 3 docker manifest inspect "$1" > /dev/null 2>&1
}
