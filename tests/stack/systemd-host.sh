#!/usr/bin/env bash
# A Debian host with a real, booted systemd, for testing the package and the unit: debootstrap and systemd-nspawn.
# Needs both, and must run as root. The host shares this machine's loopback, so that a daemon inside reaches a Kafka and
# an S3 that were started outside. It is of this machine's own release, or of the one that SYSTEMD_HOST_RELEASE names.
#
#   systemd-host.sh new DIR                    a root in DIR, copied from one that is made once (about 35 s)
#   systemd-host.sh serve DIR                  boots it and stays; whoever ends this process ends the host
#   systemd-host.sh await DIR                  returns when its systemd is running
#   systemd-host.sh run DIR COMMAND [ARG ...]  runs a command inside; its exit status is returned
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(cd "$here/../.." && pwd)/target/stack

main() {
  local what=${1:-} dir=${2:-}
  case $what in
    new) new "$dir" ;;
    serve) serve "$dir" ;;
    await) await "$dir" ;;
    run) shift 2; exec nsenter -t "$(leader "$dir")" -a "$@" ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
}

new() {
  local codename mirror root
  codename=${SYSTEMD_HOST_RELEASE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
  root=$cache/systemd-root-$codename
  mkdir -p "$cache"
  exec 9>"$root.lock"
  flock 9
  if [[ ! -d $root ]]; then
    rm -rf "$root.new"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates \
      "$codename" "$root.new" "$mirror" >"$root.log"
    mv "$root.new" "$root"
  fi
  flock -u 9
  cp -a --reflink=auto "$root/." "$1"
}

serve() {
  exec systemd-nspawn -q -D "$1" --boot --register=no --keep-unit --resolv-conf=off </dev/null
}

# The booted systemd: the only child of the systemd-nspawn that serves this root.
leader() {
  local n
  for n in $(pgrep -x systemd-nspawn); do
    tr '\0' '\n' <"/proc/$n/cmdline" | grep -qxF "$1" && pgrep -P "$n" && return
  done
  return 1
}

await() {
  local pid state=
  for _ in $(seq 240); do
    sleep 0.5
    pid=$(leader "$1") || continue
    state=$(nsenter -t "$pid" -a /bin/systemctl is-system-running 2>/dev/null) || true
    if [[ $state == running || $state == degraded ]]; then return; fi
  done
  echo "$1 did not boot (${state:-no systemd there})" >&2
  exit 1
}

main "$@"
