# shellcheck shell=bash
# What `scripts/run --nodes N` shows: several nodes of one cluster. Of scripts/run it uses node_dir, node_port, BROKER_PIDS, broker_died and
# message_id.

# Who hears everything on a node has a session that stays, so that nothing is missed while it connects again.
listener() { printf 'listener-%s\n' "$1"; }

heard() { printf '%s/heard\n' "$(node_dir "$1")"; }

# Longer than a second copy of a message would take to come: it would be on its way already.
SETTLE_SECONDS=4

LISTENER_PIDS=()

# start_listener NODE [AT]: the listener of NODE, at node AT where it isn't its own.
start_listener() {
  local node=$1 at=${2:-$1}
  local client=(-h 127.0.0.1 -p "$(node_port "$at")" -i "$(listener "$node")" -c -q 1 -t 'chat/#')
  if [[ $at == "$node" ]]; then
    # The subscription is there when this returns.
    mosquitto_sub "${client[@]}" -E || broker_died "$node" "the listener of node $node could not subscribe"
  fi
  setpriv --pdeathsig TERM mosquitto_sub "${client[@]}" -F '%t %p' </dev/null >>"$(heard "$node")" 2>"$(node_dir "$node")/listener.log" &
  LISTENER_PIDS[node]=$!
  at_exit "stop $! 10"
}

# How often a node's listener has heard TEXT.
times_heard() { grep -cF -- "$2" "$(heard "$1")" || true; }

# shellcheck disable=SC2317 # called by wait_until
heard_by_all() {
  local text=$1 node
  shift
  for node; do
    (($(times_heard "$node" "$text") > 0)) || return 1
  done
}

# say NODE TEXT: a device of that node does.
say() {
  mosquitto_pub -h 127.0.0.1 -p "$(node_port "$1")" -i "device-$1" -q 1 -t "chat/$1" -m "$2" ||
    broker_died "$1" "mosquitto_pub could not publish on node $1"
}

# show_fan_out WORD NODE…: a message from each of the nodes comes to each of them once.
show_fan_out() {
  local word=$1 from to text count line
  shift
  for from; do
    # shellcheck disable=SC2154 # of scripts/run
    say "$from" "$word from node $from, message $message_id"
  done
  for from; do
    text="$word from node $from, message $message_id"
    wait_until 90 heard_by_all "$text" "$@" || not_heard "$text" "$@"
  done
  sleep "$SETTLE_SECONDS"
  for from; do
    text="$word from node $from, message $message_id" line=''
    for to; do
      count=$(times_heard "$to" "$text")
      ((count == 1)) || die "node $to got '$text' $count times"
      [[ $to == "$from" ]] || line+=" node $to"
    done
    printf 'chat  node %s -> once each:%s: %s\n' "$from" "$line" "$text"
  done
}

not_heard() {
  local text=$1 node
  shift
  for node; do
    (($(times_heard "$node" "$text") > 0)) || broker_died "$node" "'$text' did not come to node $node within 90 s"
  done
}

# The death of a machine: Mosquitto and its sidecar at once, and without a word.
kill_node() {
  local node=$1 pid sidecar
  pid=${BROKER_PIDS[node]}
  sidecar=$(processes_naming "$(node_dir "$node")/spool")
  [[ -n $sidecar ]] || die "node $node has no sidecar"
  # shellcheck disable=SC2086 # one word for each process
  kill -KILL "$pid" $sidecar
  wait "$pid" 2>/dev/null || true
  stop "${LISTENER_PIDS[node]}" 10
  leave_no_process "$(node_dir "$node")/spool" 10 || die "node $node outlives SIGKILL"
  printf 'dead  node %s: SIGKILL of its Mosquitto and sidecar\n' "$node"
}

# show_moved NODE AT WORD FROM…: the listener of a node that is gone gets at another one what was published since.
show_moved() {
  local node=$1 at=$2 word=$3 from text count
  shift 3
  start_listener "$node" "$at"
  for from; do
    text="$word from node $from, message $message_id"
    wait_until 90 heard_by_all "$text" "$node" || broker_died "$at" "'$text' did not come to the listener of node $node at node $at within 90 s"
  done
  sleep "$SETTLE_SECONDS"
  for from; do
    text="$word from node $from, message $message_id"
    count=$(times_heard "$node" "$text")
    ((count == 1)) || die "the listener of node $node got '$text' $count times at node $at"
    printf 'moved the listener of node %s, now at node %s, got what it had missed: %s\n' "$node" "$at" "$text"
  done
}

# show_cluster NODES: each step prints what it has shown, and ends the script when that isn't so.
show_cluster() {
  local all node
  mapfile -t all < <(seq "$1")
  for node in "${all[@]}"; do
    start_listener "$node"
  done
  show_fan_out hello "${all[@]}"
}

# show_death NODES: the last one of them.
show_death() {
  local survivors
  mapfile -t survivors < <(seq $(($1 - 1)))
  kill_node "$1"
  show_fan_out 'still here' "${survivors[@]}"
  show_moved "$1" 1 'still here' "${survivors[@]}"
}
