# shellcheck shell=bash
# The Mosquitto brokers that we run on. Debian's own is installed by apt, the others are unpacked under
# $CACHE/mosquitto/VERSION, each with its own libc, so that neither the system nor its package sources change.
# In the end $CACHE/mosquitto/VERSION/mosquitto is an executable that takes mosquitto's own arguments.

MOSQUITTO_VERSIONS=(2.0.11 2.0.21 2.1.2)

mosquitto_command() { printf '%s\n' "$CACHE/mosquitto/$1/mosquitto"; }

# broker_version COMMAND: as the broker itself says it.
broker_version() {
  local text
  # Its exit code for -h says nothing.
  text=$("$1" -h 2>&1 </dev/null) || true
  [[ $text =~ mosquitto\ version\ ([0-9.]+) ]] || return 1
  printf '%s\n' "${BASH_REMATCH[1]}"
}

# The broker of the machine, its clients, and the headers that the plugin is built with.
ensure_debian_mosquitto() {
  have mosquitto || [[ -x /usr/sbin/mosquitto ]] || apt_install mosquitto
  have mosquitto_pub || apt_install mosquitto-clients
  [[ -e /usr/include/mosquitto_broker.h && -e /usr/include/mosquitto_plugin.h ]] || apt_install mosquitto-dev
  [[ -e /usr/include/mosquitto.h ]] || apt_install libmosquitto-dev
}

host_mosquitto() { command -v mosquitto || printf '/usr/sbin/mosquitto\n'; }

# ensure_mosquitto VERSION
ensure_mosquitto() {
  [[ -x $(mosquitto_command "$1") ]] || with_lock "mosquitto-$1" install_mosquitto "$1"
}

ensure_all_mosquittos() {
  local version
  for version in "${MOSQUITTO_VERSIONS[@]}"; do
    ensure_mosquitto "$version"
    log "mosquitto $version: $(broker_version "$(mosquitto_command "$version")")"
  done
}

install_mosquitto() {
  local version=$1 found
  [[ ! -x $(mosquitto_command "$version") ]] || return 0
  case $version in
    2.0.11)
      ensure_debian_mosquitto
      if [[ $(broker_version "$(host_mosquitto)") == "$version" ]]; then
        mkdir -p "$CACHE/mosquitto/$version"
        write_wrapper "$CACHE/mosquitto/$version" "$(host_mosquitto)"
      else
        unpack_mosquitto "$version" bookworm
      fi
      ;;
    2.0.21) unpack_mosquitto "$version" bookworm-backports bookworm ;;
    2.1.2) unpack_mosquitto "$version" sid ;;
    *) die "no source is known for Mosquitto $version" ;;
  esac
  local wrapper="$CACHE/mosquitto/$version/mosquitto"
  found=$(broker_version "$wrapper.new") || die "Mosquitto $version does not run: $("$wrapper.new" -h 2>&1 | head -n 3)"
  dpkg --compare-versions "$found" ge "$version" || die "asked Debian for Mosquitto $version, and got $found"
  mv "$wrapper.new" "$wrapper"
}

# write_wrapper DIRECTORY COMMAND…: as mosquitto.new, until it was seen running.
write_wrapper() {
  local directory=$1
  shift
  {
    printf '#!/bin/sh\nexec'
    printf " '%s'" "$@"
    # shellcheck disable=SC2016 # for the wrapper to expand
    printf ' "$@"\n'
  } >"$directory/mosquitto.new"
  chmod 755 "$directory/mosquitto.new"
}

# The mirror that this machine's own apt sources name.
debian_mirror() {
  local mirror
  if [[ -n ${MOSQUITTO_ROCKETMQ_DEBIAN_MIRROR:-} ]]; then
    printf '%s\n' "$MOSQUITTO_ROCKETMQ_DEBIAN_MIRROR"
    return
  fi
  # shellcheck disable=SC2016 # for apt-get to expand
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk '$3 == "main" && $2 !~ /security|updates|backports/ && $1 ~ /debian\/?$/ { print $1; exit }')
  [[ -n $mirror ]] || die "no Debian mirror in this machine's apt sources: set MOSQUITTO_ROCKETMQ_DEBIAN_MIRROR"
  printf '%s\n' "$mirror"
}

# private_apt DIRECTORY ARGUMENTS…: an apt that knows nothing of the machine's packages, and leaves no trace there.
private_apt() {
  local directory=$1
  shift
  apt-get -qq -c "$directory/apt.conf" "$@" >"$directory/log" 2>&1 </dev/null || {
    cat "$directory/log" >&2
    return 1
  }
}

# write_private_apt DIRECTORY SUITE…
write_private_apt() {
  local directory=$1 suite mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg signed=''
  shift
  mirror=$(debian_mirror)
  mkdir -p "$directory/lists/partial" "$directory/archives/partial" "$directory/state"
  : >"$directory/state/status"
  : >"$directory/sources.list"
  [[ ! -e $keyring ]] || signed="[signed-by=$keyring] "
  for suite in "$@"; do
    printf 'deb %s%s %s main\n' "$signed" "$mirror" "$suite" >>"$directory/sources.list"
  done
  cat >"$directory/apt.conf" <<CONF
Dir::State "$directory/state";
Dir::State::status "$directory/state/status";
Dir::State::lists "$directory/lists";
Dir::Cache "$directory";
Dir::Cache::archives "$directory/archives";
Dir::Etc::sourcelist "$directory/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Debug::NoLocking "true";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Pre-Invoke;
#clear DPkg::Pre-Install-Pkgs;
CONF
}

# unpack_mosquitto VERSION SUITE [MORE SUITES]: the broker and all it depends on, down to libc.
unpack_mosquitto() {
  local version=$1 suite=$2 directory="$CACHE/mosquitto/$1" work deb
  shift
  log "unpacking Mosquitto $version from Debian $suite into $directory"
  mkdir -p "$CACHE/mosquitto"
  work=$(mktemp -d "$CACHE/mosquitto/new.XXXXXX")
  write_private_apt "$work/apt" "$@"
  retry 3 private_apt "$work/apt" update || die "no package lists of Debian $suite to be had"
  retry 3 private_apt "$work/apt" -y -t "$suite" --download-only install mosquitto ||
    die "no Mosquitto to be had from Debian $suite"
  mkdir "$work/root"
  for deb in "$work"/apt/archives/*.deb; do
    dpkg-deb -x "$deb" "$work/root"
  done
  rm -rf "$work/apt" "$work/root/usr/share/doc" "$work/root/usr/share/locale"
  rm -rf "$directory"
  mv "$work/root" "$directory"
  rm -rf "$work"
  wrap_unpacked "$directory"
}

# The unpacked broker runs by its own loader with its own libraries. A path given to the loader, unlike
# LD_LIBRARY_PATH, isn't inherited by what the broker starts: the sidecar is a program of the host.
wrap_unpacked() {
  local directory=$1 multiarch loader libraries='' path
  multiarch=$(find "$directory" -name 'libmosquitto.so.1' -print -quit)
  multiarch=$(basename "$(dirname "$multiarch")")
  loader=$(find "$directory" -type f \( -name 'ld-linux*.so.*' -o -name 'ld-[0-9]*.so' \) -print -quit)
  [[ -n $loader ]] || die "no dynamic loader among what Mosquitto depends on"
  for path in "usr/lib/$multiarch" "lib/$multiarch" usr/lib lib; do
    [[ -d $directory/$path ]] || continue
    libraries+="${libraries:+:}$directory/$path"
    # Some packages leave the links with the sonames to ldconfig.
    PATH="$PATH:/sbin:/usr/sbin" ldconfig -n "$directory/$path"
  done
  write_wrapper "$directory" "$loader" --library-path "$libraries" "$directory/usr/sbin/mosquitto"
}
