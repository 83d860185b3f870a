# shellcheck shell=bash
# What every script here shares: strict mode, messages, the cache, locks, ports, waiting, and cleaning up.
# To be sourced, never run.

set -euo pipefail

# The root of the repository; every script may be called from anywhere.
REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
CACHE="${MOSQUITTO_ROCKETMQ_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mosquitto-rocketmq}"
export REPO CACHE
mkdir -p "$CACHE/locks"

# Messages go to stderr: stdout belongs to what a command answers.
log() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
  log "error: $*"
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# with_lock NAME COMMAND…: one at a time over all scripts of this user. The command doesn't inherit the
# lock, so that nothing it leaves running can hold it.
with_lock() {
  local name=$1
  shift
  (
    exec {lock_fd}>"$CACHE/locks/$name"
    if ! flock -n "$lock_fd"; then
      log "waiting for another run ($name)"
      flock "$lock_fd"
    fi
    "$@" {lock_fd}>&-
  )
}

# retry TIMES COMMAND…: for what goes over a network.
retry() {
  local times=$1 attempt
  shift
  for ((attempt = 1; attempt <= times; attempt++)); do
    "$@" && return 0
    ((attempt == times)) || { log "failed (attempt $attempt of $times), once more: $*" && sleep $((attempt * 3)); }
  done
  return 1
}

# wait_until SECONDS COMMAND…: polls until the command succeeds; 1 when it didn't within the time.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# port_open PORT: does somebody listen on 127.0.0.1:PORT?
port_open() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# port_block COUNT: sets PORT_BASE to the first of COUNT (≤ 10) free ports in a row, and keeps the block from
# other scripts until this one has ended. Below Linux' ephemeral ports, so that no client socket sits on one.
# Not to be called in a subshell: the reservation is a lock that this process holds.
port_block() {
  local count=$1 attempt base offset free fd
  for ((attempt = 0; attempt < 200; attempt++)); do
    base=$((20000 + (RANDOM % 1200) * 10))
    exec {fd}>"$CACHE/locks/ports-$base"
    if flock -n "$fd"; then
      free=yes
      for ((offset = 0; offset < count; offset++)); do
        ! port_open $((base + offset)) || { free=no && break; }
      done
      if [[ $free == yes ]]; then
        PORT_BASE=$base
        return 0
      fi
    fi
    exec {fd}>&-
  done
  die "found no $count free ports in a row between 20000 and 32000"
}

# free_port: sets PORT to a free port, reserved likewise.
free_port() {
  port_block 1
  # shellcheck disable=SC2034 # read by the scripts that source this
  PORT=$PORT_BASE
}

# at_exit COMMAND: run when the script ends, however it ends; the last one added runs first.
AT_EXIT=()
at_exit() { AT_EXIT+=("$*"); }

run_at_exit() {
  local status=$? index
  trap - EXIT
  trap '' INT TERM HUP
  for ((index = ${#AT_EXIT[@]} - 1; index >= 0; index--)); do
    eval "${AT_EXIT[index]}" || true
  done
  exit "$status"
}

trap run_at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# temp_dir PREFIX: sets TEMP_DIR to a new directory that is removed at the end. What is started from then on has it in its
# environment, by which leave_no_process (servers.sh) knows it.
temp_dir() {
  TEMP_DIR=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX")
  export MRMQ_RUN="$TEMP_DIR"
  at_exit "rm -rf '$TEMP_DIR'"
}

# Without procps: is PID running (and not a zombie)?
alive() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  [[ ${stat%% *} != [ZX] ]]
}

gone() { ! alive "$1"; }

# Is PID a process that this script started? The number of one that has ended may be anybody's by now.
our_child() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  stat=${stat#* }
  [[ ${stat%% *} == "$$" ]]
}

# stop PID [SECONDS]: ends a child of this script.
stop() {
  ! our_child "$1" || end_process "$@"
  wait "$1" 2>/dev/null || true
}

# end_process PID [SECONDS]: SIGTERM, and SIGKILL when it's still there after SECONDS (30).
end_process() {
  local pid=$1 seconds=${2:-30}
  kill -TERM "$pid" 2>/dev/null || true
  kill -CONT "$pid" 2>/dev/null || true
  if ! wait_until "$seconds" gone "$pid"; then
    log "process $pid didn't end within $seconds s: killing it"
    kill -KILL "$pid" 2>/dev/null || true
  fi
}
