#!/bin/sh
# Writes what packages hold besides the binary, made by the binary itself: manual pages and completions.
#
#     packaging/stage.sh target/release/kafka-backup target/package && cargo deb --no-build
set -eu

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
