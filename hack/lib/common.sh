# shellcheck shell=bash disable=SC2034  # who sources this uses what it sets
# What every command here shares: where the cache is, how to speak, how to show progress.
set -euo pipefail
shopt -s inherit_errexit

HACK=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REPO=$(dirname "$HACK")
# shellcheck source=../versions
. "$HACK/versions"

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/neuron-sim
BIN=$CACHE/bin
STATE=$CACHE/state
LOGS=$CACHE/logs
mkdir -p "$BIN" "$STATE" "$LOGS"

case $(uname -m) in
  x86_64 | amd64) ARCH=amd64 ;;
  aarch64 | arm64) ARCH=arm64 ;;
  *) ARCH=$(uname -m) ;;
esac

say() { printf '%s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# step TEXT COMMAND...: run a command or function with its output in a log, and show that time passes:
# on a terminal all the time, elsewhere every half minute. A failure prints the end of the log and ends
# everything. Call it as a plain statement: in a condition, bash would let COMMAND run on after an error.
step() {
  local text=$1 start=$SECONDS pid rc=0 log next=30; shift
  log=$(mktemp "$LOGS/$(date +%H%M%S)-XXXXXX")
  [ -t 2 ] || say "-- $text ..."
  (set -e; "$@") > "$log" 2>&1 < /dev/null &
  pid=$!
  # shellcheck disable=SC2064  # this child, not whatever $pid is later
  trap "end_tree $pid; exit 130" INT TERM
  while kill -0 "$pid" 2> /dev/null; do
    if [ -t 2 ]; then
      printf '\r\033[K-- %s  %d s' "$text" $((SECONDS - start)) >&2
    elif [ $((SECONDS - start)) -ge $next ]; then
      say "   $text: $((SECONDS - start)) s so far"; next=$((next + 30))
    fi
    sleep 0.2
  done
  wait "$pid" || rc=$?
  trap - INT TERM
  [ ! -t 2 ] || printf '\r\033[K' >&2
  if [ $rc -ne 0 ]; then
    tail -n 25 "$log" >&2
    die "failed after $((SECONDS - start)) s: $text (all of its output: $log)"
  fi
  rm -f "$log"
  say "ok $text ($((SECONDS - start)) s)"
}

# end_tree PID: a process of ours and all it started (an interrupted shell leaves them running)
end_tree() {
  local child
  for child in $(cat "/proc/$1/task/$1/children" 2> /dev/null || true); do end_tree "$child"; done
  kill "$1" 2> /dev/null || true
}

# words on standard input -> a short name for them
short_hash() { sha256sum | cut -c1-12; }

# tree_key PATH...: a short name for the files there: names, modes and content
tree_key() {
  (cd "$HACK" && find "$@" -type f ! -name '*.pyc' | LC_ALL=C sort | while read -r file; do
    stat -c '%a %n' "$file"; cat "$file"
  done) | short_hash
}

# with_lock WHAT COMMAND...: one at a time for what all clusters share: `cache` (binaries, daemon, node images,
# registry), `images` (what ours are made of), `packages` (of the machine)
with_lock() {
  local what=$1; shift
  case " ${HAVE_LOCKS:-} " in *" $what "*) "$@"; return ;; esac
  (
    if ! flock -n 9; then
      say "-- another command is at work on the $what of $CACHE; waiting for it"
      flock 9
    fi
    HAVE_LOCKS="${HAVE_LOCKS:-} $what"
    "$@"
  ) 9> "$CACHE/.lock-$what"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo > /dev/null; then sudo "$@"
  else die "needs root for: $*   (run it as root, or install sudo)"
  fi
}
