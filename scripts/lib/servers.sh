# shellcheck shell=bash
# Servers that a script starts for itself, and that end with it.

# start_rocketmq DIRECTORY [ARGUMENT…]: sets ROCKETMQ_PID and NAMESRV. It gets SIGTERM should this shell be killed.
start_rocketmq() {
  local directory=$1 answer=''
  shift
  mkdir -p "$directory"
  mkfifo "$directory/ready"
  setpriv --pdeathsig TERM "$REPO/scripts/rocketmq" --dir "$directory" "$@" </dev/null >"$directory/ready" &
  ROCKETMQ_PID=$!
  at_exit "stop $ROCKETMQ_PID 60"
  read -r answer <"$directory/ready" || die "RocketMQ did not start"
  rm "$directory/ready"
  # shellcheck disable=SC2034 # read by the scripts that source this
  NAMESRV=${answer#ready }
}

# processes_naming TEXT: the ids of the processes with TEXT in their command line that this run has started (see temp_dir), but
# for this script: somebody may be looking at a log of ours.
processes_naming() {
  local entry pid
  for entry in /proc/[0-9]*/cmdline; do
    pid=${entry#/proc/}
    pid=${pid%/cmdline}
    [[ $pid != "$$" && $pid != "$BASHPID" ]] || continue
    # The order matters: a process that is gone by now is no error to show.
    if tr '\0' ' ' 2>/dev/null <"$entry" | grep -qF -- "$1" && of_this_run "$pid"; then
      printf '%s\n' "$pid"
    fi
  done
}

# Also what a script that this one called has started: its folder is inside ours.
of_this_run() {
  tr '\0' '\n' 2>/dev/null <"/proc/$1/environ" | grep -q -- "^MRMQ_RUN=${TEMP_DIR//./\\.}\(/\|\$\)"
}

none_naming() { [[ -z $(processes_naming "$1") ]]; }

# leave_no_process TEXT SECONDS: waits for those to end; 1 when some had to be killed.
leave_no_process() {
  local pid left
  ! wait_until "$2" none_naming "$1" || return 0
  left=$(processes_naming "$1")
  for pid in $left; do
    log "left behind: $pid $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | cut -c 1-200)"
    kill -KILL "$pid" 2>/dev/null || true
  done
  return 1
}

# Network namespaces of the ledger (tests/src/rig/netns.rs) that one which was interrupted could not remove: their names hold the
# id of the process that made them.
remove_left_behind_namespaces() {
  local name pid
  for name in $(compgen -G '/run/netns/mrmq-*'); do
    name=${name##*/}
    pid=${name#mrmq-}
    ! alive "${pid%%-*}" || continue
    # With the namespace, unless something still runs in it.
    ip link del "q${name#mrmq-}" 2>/dev/null || true
    ip netns del "$name" 2>/dev/null || true
  done
}
