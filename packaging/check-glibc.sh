#!/usr/bin/env bash
# Fails unless a binary needs nothing but glibc, and none newer than a version.
#   check-glibc.sh BINARY 2.28
set -euo pipefail
binary=$1 floor=$2

# readelf, which reads the files of every architecture.
needed=$(readelf --version-info --wide "$binary" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -1)
[[ -n $needed ]] || { echo "$binary: no symbols of glibc found" >&2; exit 1; }
if [[ $(printf '%s\n%s\n' "$needed" "$floor" | sort -V | tail -1) != "$floor" ]]; then
  echo "$binary needs glibc $needed, more than $floor:" >&2
  readelf --dyn-syms --wide "$binary" | grep -F "GLIBC_$needed" >&2
  exit 1
fi
others=$(readelf --dynamic --wide "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p' |
  grep -vE '^(libc|libm|libdl|libpthread|librt|ld-linux[-a-z0-9_]*)\.so\.[0-9]+$' || true)
if [[ -n $others ]]; then
  echo "$binary needs libraries besides glibc:" $others >&2
  exit 1
fi
echo "$binary: glibc $needed or newer, nothing else"
