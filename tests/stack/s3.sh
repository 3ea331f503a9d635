#!/usr/bin/env bash
# A real S3 server for tests on loopback: one Ceph monitor, one in-memory OSD and the RADOS gateway.
#
#   s3.sh up DIR [PORT]    starts it (about 15 s) and prints its endpoint; uses PORT and the next two, or free ones
#   s3.sh down DIR         stops it
#
# Keys AKTEST / SKTESTSKTEST of user test, and AKPARTNER / SKPARTNERSK of user partner, who may do what a bucket's policy
# allows; region us-east-1, path style. DIR holds everything and is emptied first.
# OSD_BYTES: how much it can hold (default 8 GiB of memory at most). LC_DAY: seconds of a lifecycle day (default 10).
# Needs Debian's ceph-mon, ceph-osd, ceph-common and radosgw (apt-get install --no-install-recommends).
set -euo pipefail

usage() {
  echo "usage: s3.sh up DIR [PORT] | down DIR" >&2
  exit 2
}

[[ $# -ge 2 ]] || usage
what=$1 dir=$2 port=${3:-}

# Stops what the pid files in DIR name, and only while those processes are still ours.
down() {
  local file pid
  for file in "$dir"/*.pid; do
    [[ -s $file ]] || continue
    pid=$(<"$file")
    grep -qzF -- "$dir/ceph.conf" "/proc/$pid/cmdline" 2>/dev/null || continue
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 50); do
      kill -0 "$pid" 2>/dev/null || continue 2
      sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
  done
}

# The first of three ports nobody uses, below the range from which the kernel hands out ports by itself.
free_ports() {
  local base used n
  used=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | cut -d: -f3 | cut -d' ' -f1)
  while true; do
    base=$((20000 + RANDOM % 12000))
    for n in 0 1 2; do
      grep -qx "$(printf '%04X' $((base + n)))" <<<"$used" && continue 2
    done
    echo "$base"
    return
  done
}

configure() {
  cat > "$dir/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind ipv6 = false
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd crush chooseleaf type = 0
osd pool default pg num = 4
osd pool default pgp num = 4
mon max pg per osd = 2000
mon data avail warn = 1
mon data avail crit = 1
osd objectstore = memstore
memstore device bytes = ${OSD_BYTES:-8589934592}
osd data = $dir/osd
mon data = $dir/mon
keyring = $keyring
log file = $dir/log/\$name.log
admin socket = $dir/\$name.asok
run dir = $dir
pid file = $dir/\$name.pid
rgw frontends = beast endpoint=127.0.0.1:$port
rgw lc debug interval = ${LC_DAY:-10}
rgw dns name = localhost
rgw data = $dir/rgw
CONF
}

start() {
  ceph-authtool --create-keyring "$keyring" --gen-key -n mon. --cap mon 'allow *'
  local name
  for name in client.admin osd.0 client.rgw.a; do
    ceph-authtool "$keyring" --gen-key -n "$name" --cap mon 'allow *' --cap osd 'allow *'
  done
  monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]" "$dir/monmap"
  ceph-mon "${conf[@]}" --mkfs -i a --monmap "$dir/monmap" --keyring "$keyring"
  ceph-mon "${conf[@]}" -i a
  timeout 30 ceph "${conf[@]}" osd create
  ceph-osd "${conf[@]}" -i 0 --mkfs
  ceph-osd "${conf[@]}" -i 0
  timeout 30 ceph "${conf[@]}" osd crush add-bucket h0 host
  timeout 30 ceph "${conf[@]}" osd crush move h0 root=default
  timeout 30 ceph "${conf[@]}" osd crush add osd.0 1 host=h0
  radosgw "${conf[@]}" -n client.rgw.a
}

answers() {
  curl -fs -m 2 -o /dev/null "http://127.0.0.1:$port/"
}

up() {
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  down
  rm -rf "${dir:?}"/*
  port=${port:-$(free_ports)}
  mkdir -p "$dir"/{mon,osd,log,rgw}
  fsid=$(</proc/sys/kernel/random/uuid) keyring=$dir/keyring conf=(-c "$dir/ceph.conf")
  configure
  if ! start >"$dir/log/up.log" 2>&1; then
    echo "s3.sh: the server did not start, see $dir/log/up.log" >&2
    tail -n 5 "$dir/log/up.log" >&2
    down
    exit 1
  fi
  for _ in $(seq 120); do
    answers && break
    sleep 0.5
  done
  answers || { echo "s3.sh: no answer on port $port, see $dir/log" >&2; down; exit 1; }
  timeout 60 radosgw-admin "${conf[@]}" user create --uid test --display-name test \
    --access-key AKTEST --secret-key SKTESTSKTEST >/dev/null 2>>"$dir/log/up.log"
  timeout 60 radosgw-admin "${conf[@]}" user create --uid partner --display-name partner \
    --access-key AKPARTNER --secret-key SKPARTNERSK >/dev/null 2>>"$dir/log/up.log"
  echo "http://127.0.0.1:$port"
}

case $what in
  up) up ;;
  down) [[ ! -d $dir ]] || { dir=$(cd "$dir" && pwd); down; } ;;
  *) usage ;;
esac
