# shellcheck shell=bash
# Installs what is missing on the machine: Debian's packages, the JDK, Maven, RocketMQ's jars, cargo's tools.
# Each ensure_… returns at once when there is nothing to do, and may run several times at once.

ROCKETMQ_VERSION=5.5.0
ROCKETMQ_LIB="$CACHE/rocketmq-$ROCKETMQ_VERSION/lib"
export ROCKETMQ_LIB
PAHO_VERSION=1.2.5
PAHO_LIB="$CACHE/paho-$PAHO_VERSION/lib"

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "needs root, and there is no sudo, for: $*"
  fi
}

package_there() { [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

POLICY=/usr/sbin/policy-rc.d

# apt_install PACKAGE…: those that aren't there, without starting any service.
apt_install() {
  local package missing=()
  for package in "$@"; do
    package_there "$package" || missing+=("$package")
  done
  ((${#missing[@]} == 0)) || with_lock apt apt_install_locked "${missing[@]}"
}

apt_install_locked() {
  have apt-get || die "no apt-get here; please install by hand: $*"
  log "installing $*"
  if [[ ! -e $POLICY ]]; then
    # with_lock has made this a shell of its own, which has none of the script's traps.
    trap 'as_root rm -f "$POLICY"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    # A package's service must not start: a second broker on port 1883 was never asked for.
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
  fi
  {
    package_lists && retry 3 apt_get install -y --no-install-recommends "$@"
  } || die "apt-get could not install: $*"
}

# Once is enough for the packages of one run.
package_lists() {
  local stamp="$CACHE/locks/apt-updated"
  [[ -z $(find "$stamp" -mmin -30 2>/dev/null) ]] || return 0
  retry 3 apt_get update && touch "$stamp"
}

apt_get() {
  local out
  out=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \
    "$@" 2>&1 </dev/null) || {
    printf '%s\n' "$out" >&2
    return 1
  }
}

ensure_base_tools() {
  have cc || apt_install build-essential
  have setpriv || apt_install util-linux
  have pkg-config || apt_install pkg-config
  have openssl || apt_install openssl
  if ! have cargo && [[ -x $HOME/.cargo/bin/cargo ]]; then
    PATH="$HOME/.cargo/bin:$PATH"
  fi
  have cargo || die "no cargo on the PATH: install Rust (rust-toolchain.toml names the version) and come back"
}

java_major() {
  local line
  have java && have javac || return 1
  line=$(java -version 2>&1) || return 1
  [[ $line =~ version\ \"([0-9]+) ]] || return 1
  printf '%s\n' "${BASH_REMATCH[1]}"
}

ensure_java() {
  local major
  major=$(java_major) || major=0
  ((major >= 11)) || apt_install openjdk-17-jdk-headless
}

# RocketMQ's own jars, from Maven's central repository: 150 files, 102 MB.
ensure_rocketmq() {
  ensure_java
  [[ -e $ROCKETMQ_LIB/.complete ]] || with_lock rocketmq install_rocketmq
}

install_rocketmq() {
  [[ ! -e $ROCKETMQ_LIB/.complete ]] || return 0
  local artifact coordinates=()
  for artifact in namesrv broker proxy tools controller; do
    coordinates+=("org.apache.rocketmq:rocketmq-$artifact:$ROCKETMQ_VERSION")
  done
  fetch_jars "$ROCKETMQ_LIB" "rocketmq-broker-$ROCKETMQ_VERSION.jar" "${coordinates[@]}"
}

# Eclipse Paho's client, for the bridge that the benchmark has as its reference.
ensure_paho() {
  ensure_java
  [[ -e $PAHO_LIB/.complete ]] || with_lock paho install_paho
}

install_paho() {
  [[ ! -e $PAHO_LIB/.complete ]] || return 0
  fetch_jars "$PAHO_LIB" "org.eclipse.paho.client.mqttv3-$PAHO_VERSION.jar" "org.eclipse.paho:org.eclipse.paho.client.mqttv3:$PAHO_VERSION"
}

# fetch_jars DIRECTORY FILE GROUP:ARTIFACT:VERSION…: by Maven, with all that they need at run time; FILE is one of them.
fetch_jars() {
  local directory=$1 file=$2 work coordinate group artifact version
  shift 2
  have mvn || apt_install maven
  log "fetching $* by Maven into $directory"
  work="$directory.new.$$"
  mkdir -p "$work/lib"
  {
    printf '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>\n'
    printf '<groupId>local</groupId><artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>\n'
    printf '<dependencies>\n'
    for coordinate in "$@"; do
      IFS=: read -r group artifact version <<<"$coordinate"
      printf '<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n' "$group" "$artifact" "$version"
    done
    printf '</dependencies></project>\n'
  } >"$work/pom.xml"
  retry 3 mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/lib" \
    -DincludeScope=runtime >&2 </dev/null || die "Maven could not fetch $*"
  [[ -e $work/lib/$file ]] || die "Maven brought no $file"
  touch "$work/lib/.complete"
  # Whole or not at all: a run that was cut short leaves no half-filled folder under the real name.
  rm -rf "$directory"
  mv "$work/lib" "$directory"
  rm -rf "$work"
}

# A clock that can be set for a process alone. Its path in MRMQ_LIBFAKETIME.
ensure_faketime() {
  local library
  library=$(faketime_library) || { apt_install libfaketime && library=$(faketime_library); } ||
    die "the package libfaketime brought no libfaketimeMT.so.1"
  export MRMQ_LIBFAKETIME=$library
}

faketime_library() {
  local found
  found=$(compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1') && printf '%s\n' "${found%%$'\n'*}"
}

# Network namespaces, and dropping packets there.
ensure_network_tools() {
  PATH="$PATH:/sbin:/usr/sbin"
  have ip || apt_install iproute2
  have iptables || apt_install iptables
}

# bindgen, for the check that the committed bindings still match Mosquitto's headers.
ensure_libclang() {
  # Not libclang-cpp.so, which other packages bring: bindgen can't use it.
  compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || apt_install libclang-dev
}

ensure_cargo_deny() {
  [[ -x $CACHE/tools/bin/cargo-deny ]] || with_lock cargo-deny install_cargo_deny
  PATH="$CACHE/tools/bin:$PATH"
}

install_cargo_deny() {
  [[ ! -x $CACHE/tools/bin/cargo-deny ]] || return 0
  log "building cargo-deny (some minutes, once)"
  # A lint tool that runs for a second isn't worth a slow optimised build.
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    retry 3 cargo install --locked cargo-deny --root "$CACHE/tools" >&2 </dev/null ||
    die "cargo could not install cargo-deny"
}
