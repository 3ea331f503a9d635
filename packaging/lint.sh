#!/usr/bin/env bash
# What distributions' own checkers say of a package; fails on errors and warnings that are not explained in
# packaging/lintian/kafka-backup and packaging/rpm/rpmlint.toml.
#   lint.sh FILE.deb FILE.rpm
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lintian --fail-on error,warning --display-level '>=warning' --allow-root "$1"
rpmlint --strict --config packaging/rpm/rpmlint.toml "$2"
