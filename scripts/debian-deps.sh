#!/usr/bin/env bash
# Installs those of the named Debian packages that are missing; asks for nothing and says nothing when all are there.
#   debian-deps.sh PACKAGE...
set -euo pipefail

missing=()
for package in "$@"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
  echo "missing packages: ${missing[*]}; this system has no apt-get, please install their equivalents" >&2
  exit 1
fi
as_root=()
((EUID == 0)) || as_root=(sudo)
echo "installing ${missing[*]}" >&2
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" </dev/null >&2; }
apt update
apt install --no-install-recommends -y "${missing[@]}"
