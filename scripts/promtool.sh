#!/usr/bin/env bash
# Puts promtool from Debian's prometheus package where it is asked for, without installing the package, which would start
# a Prometheus.
#   promtool.sh FILE
set -euo pipefail

file=$1
if [[ -x $file ]]; then exit 0; fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# apt's own user downloads.
chmod 755 "$folder"
if ((EUID == 0)); then apt-get -qq update </dev/null >&2; fi
(cd "$folder" && apt-get -qq download prometheus </dev/null >&2)
dpkg-deb -x "$folder"/prometheus_*.deb "$folder/root"
mkdir -p "$(dirname "$file")"
install -m 755 "$folder/root/usr/bin/promtool" "$file"
