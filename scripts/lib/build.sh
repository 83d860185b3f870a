# shellcheck shell=bash
# Builds what ships. One target folder outside the tree serves all clones: the RocketMQ client under it costs 20
# CPU-minutes, once.

export CARGO_TARGET_DIR="$CACHE/target"

# Always built as one set, so that features unify in one way and no dependency is built twice.
PACKAGES=(-p mosquitto-rocketmq-sidecar -p mosquitto-rocketmq-client -p mosquitto-rocketmq-plugin)

build_in_place() {
  (cd "$REPO" && cargo build --release --locked "${PACKAGES[@]}" >&2 </dev/null) || die "the build failed"
}

# build_release DIRECTORY: puts mosquitto_rocketmq.so and mosquitto-rocketmq into DIRECTORY. A copy: another clone
# that builds into the same target folder replaces what lies there.
build_release() {
  mkdir -p "$1"
  with_lock build build_and_copy "$1"
}

build_and_copy() {
  log "building (the first time takes 10 to 20 minutes on two cores)"
  build_in_place
  # Replaced, not written over: it may be running.
  install -m 755 "$CARGO_TARGET_DIR/release/libmosquitto_rocketmq.so" "$1/mosquitto_rocketmq.so"
  install -m 755 "$CARGO_TARGET_DIR/release/mosquitto-rocketmq" "$1/mosquitto-rocketmq"
}

# build_java DIRECTORY: the classes of tests/java, which use RocketMQ's own client.
build_java() {
  mkdir -p "$1"
  javac -nowarn -Xlint:-deprecation -XDsuppressNotes -d "$1" -cp "$ROCKETMQ_LIB/*" "$REPO"/tests/java/*.java >&2 || die "javac failed"
}
