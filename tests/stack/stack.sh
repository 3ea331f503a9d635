#!/usr/bin/env bash
# Kafka and S3 together, for everything that tests against the real ones.
#
#   stack.sh up [DIR]        starts both and prints the variables the tests look at, as shell exports
#   stack.sh down [DIR]      stops both
#   stack.sh with CMD...     starts both, runs CMD with the variables set, stops both; ends with CMD's exit status
#   stack.sh s3 DIR          starts S3 alone, on free ports, and prints its endpoint
#   stack.sh guard DIR       waits until its standard input ends, then stops whatever was started in DIR and removes it
#
# DIR is target/stack/shared unless given. The guard is how nothing is left behind: whoever starts servers holds the
# other end of its input, which the kernel closes however the holder ends.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=ports.sh
source "$here/ports.sh"

main() {
  local what=${1:-}
  shift || true
  case $what in
    up) up "${1:-$root/target/stack/shared}" ;;
    down) down "${1:-$root/target/stack/shared}" ;;
    with) with "$@" ;;
    s3) s3 "$@" ;;
    guard) guard "$@" ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
}

# The two start side by side: Kafka takes about 5 s, S3 about 15 s. Their answers go through files, so that this shell
# sees when one of them fails.
up() {
  local dir=$1 kafka_pid s3_pid
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  "$here/kafka.sh" up "$dir/kafka" >"$dir/kafka.out" &
  kafka_pid=$!
  s3 "$dir/s3" >"$dir/s3.out" &
  s3_pid=$!
  wait "$kafka_pid"
  wait "$s3_pid"
  echo "export KAFKA_BACKUP_TEST_KAFKA=$(tail -n 1 "$dir/kafka.out")"
  echo "export KAFKA_BACKUP_TEST_S3=$(tail -n 1 "$dir/s3.out")"
}

s3() { "$here/s3.sh" up "$1" "$(free_ports 3 | head -n 1)"; }

down() {
  local dir=$1
  [[ -d $dir ]] || return 0
  for cluster in "$dir"/kafka*/; do
    if [[ -d $cluster ]]; then "$here/kafka.sh" down "$cluster"; fi
  done
  if [[ -d $dir/s3 ]]; then "$here/s3.sh" down "$dir/s3"; fi
}

with() {
  local dir status=0
  mkdir -p "$root/target/stack"
  dir=$(mktemp -d "$root/target/stack/run.XXXXXX")
  exec 9> >(exec setsid "$here/stack.sh" guard "$dir" >/dev/null)
  local guard=$!
  # Neither the servers nor the command may hold the guard's input, or it would wait for them.
  up "$dir" 9>&- >"$dir/exports"
  # shellcheck disable=SC1091
  source "$dir/exports"
  "$@" 9>&- || status=$?
  exec 9>&-
  wait "$guard" || true
  exit "$status"
}

guard() {
  local dir=$1
  trap '' INT TERM HUP
  cat >/dev/null
  down "$dir"
  rm -rf "$dir"
}

main "$@"
