# Sourced by the scripts beside it. Ports nobody uses on this machine now, below the range (32768 and up) from which
# the kernel hands out ports by itself.

# free_ports COUNT: prints that many, one behind the other, each on a line.
free_ports() {
  local count=$1 used first offset
  used=" $(awk 'FNR > 1 { split($2, a, ":"); print a[length(a)] }' /proc/net/tcp /proc/net/tcp6 | tr '\n' ' ')"
  while true; do
    first=$((20000 + RANDOM % 12000))
    for ((offset = 0; offset < count; offset++)); do
      [[ $used == *" $(printf '%04X' $((first + offset))) "* ]] && continue 2
    done
    seq "$first" $((first + count - 1))
    return
  done
}
