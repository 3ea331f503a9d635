#!/bin/sh
# Writes what packages hold besides the binary: manual pages and completions, made by a binary that runs here, and the
# Debian changelog.
#
#     packaging/stage.sh target/debug/kafka-backup target/package
set -eu
cd "$(dirname "$0")/.."

binary=$1
out=$2

rm -rf "$out"
mkdir -p "$out/man" "$out/completions"
"$binary" man "$out/man"
# -n: no name and time in the archive, so that the same pages are the same bytes.
gzip -9 -n "$out"/man/*
"$binary" completions bash > "$out/completions/kafka-backup"
"$binary" completions zsh > "$out/completions/_kafka-backup"
"$binary" completions fish > "$out/completions/kafka-backup.fish"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# The date of the change that is packaged, not of the packaging: the same source is the same package.
date=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
cat > "$out/changelog" <<EOF
kafka-backup ($version-1) stable; urgency=medium

  * What changed is in CHANGELOG.md of the source.

 -- Kafka Backup maintainers <maintainers@kafka-backup.invalid>  $(LC_ALL=C date -u -d "@$date" -R)
EOF
