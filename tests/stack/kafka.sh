#!/usr/bin/env bash
# A real Apache Kafka (KRaft) on loopback for tests: one node, or several, each broker and controller in one.
#
#   kafka.sh up DIR [BROKERS]       starts it on free ports and prints the bootstrap servers, one port per broker
#   kafka.sh down DIR               stops all of it
#   kafka.sh stop DIR N [SIGNAL]    stops broker N (1, 2, ...), by default as an orderly shutdown (TERM)
#   kafka.sh start DIR N            starts broker N again on its old ports and data
#   kafka.sh tool CLASS ARG...      runs one of Kafka's own tools, e.g. org.apache.kafka.tools.TopicCommand
#   kafka.sh avro-tools ARG...      runs Apache Avro's own tools
#   kafka.sh fetch                  only downloads what the other commands need
#
# Everything comes from Maven Central and is kept in target/stack/lib (or KAFKA_BACKUP_TEST_LIB). Needs Debian's
# openjdk-17-jre-headless, maven and util-linux (flock). KAFKA_EXTRA='key=value;key=value' adds broker settings.
set -euo pipefail

kafka_version=4.1.1
avro_version=1.12.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lib=${KAFKA_BACKUP_TEST_LIB:-$(cd "$here/../.." && pwd)/target/stack/lib}
kafka_lib=$lib/kafka-$kafka_version
avro_jar=$lib/avro-tools-$avro_version.jar
# shellcheck source=ports.sh
source "$here/ports.sh"

main() {
  local what=${1:-}
  shift || true
  case $what in
    up) up "$@" ;;
    down) down "$@" ;;
    stop) stop "$@" ;;
    start) start "$@" ;;
    tool) fetch_kafka && exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$kafka_lib/*" "$@" ;;
    avro-tools) fetch_avro_tools && exec java -Xmx512m -XX:+UseSerialGC -jar "$avro_jar" "$@" ;;
    fetch) fetch_kafka && fetch_avro_tools ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
}

# --- what it needs ---------------------------------------------------------------------------------------------------

# Runs "$@" unless FILE is there; whoever comes second (another test process) waits for the first.
once() {
  local file=$1
  shift
  [[ -e $file ]] && return
  mkdir -p "$lib"
  (
    flock 9
    [[ -e $file ]] || "$@"
  ) 9>"$lib/.lock" >&2
}

fetch_kafka() { once "$kafka_lib/.done" download_kafka; }
fetch_avro_tools() { once "$avro_jar" download_avro_tools; }

download_kafka() {
  mkdir -p "$kafka_lib"
  cat >"$kafka_lib/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>kafka-dist</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka_version</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$kafka_version</version></dependency>
</dependencies></project>
POM
  mvn -q -B -f "$kafka_lib/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$kafka_lib" -DincludeScope=runtime </dev/null
  touch "$kafka_lib/.done"
}

download_avro_tools() {
  mvn -q -B dependency:copy -Dartifact="org.apache.avro:avro-tools:$avro_version" -DoutputDirectory="$lib" </dev/null
}

# --- the cluster -----------------------------------------------------------------------------------------------------

up() {
  local dir=$1 brokers=${2:-1} i
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  down "$dir"
  rm -rf "${dir:?}"/*
  fetch_kafka
  mapfile -t ports < <(free_ports $((2 * brokers)))
  write_log4j >"$dir/log4j2.properties"
  local voters='' bootstrap='' cluster
  cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c1-22)
  for ((i = 1; i <= brokers; i++)); do
    voters+=${voters:+,}$i@127.0.0.1:${ports[2 * i - 1]}
    bootstrap+=${bootstrap:+,}127.0.0.1:${ports[2 * i - 2]}
  done
  for ((i = 1; i <= brokers; i++)); do
    mkdir -p "$dir/$i"
    write_properties "$dir" "$i" "$brokers" "$voters" >"$dir/$i/server.properties"
    java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$kafka_lib/*" \
      kafka.tools.StorageTool format -t "$cluster" -c "$dir/$i/server.properties" >"$dir/$i/format.log" 2>&1
    echo "${ports[2 * i - 2]}" >"$dir/$i/port"
    launch "$dir" "$i"
  done
  for ((i = 1; i <= brokers; i++)); do await "$dir" "$i"; done
  echo "$bootstrap"
}

down() {
  local dir=$1 file
  for file in "$dir"/*/pid; do
    [[ -s $file ]] || continue
    kill_and_wait "$(<"$file")" TERM
    rm -f "$file"
  done
}

stop() {
  local dir=$1 n=$2 signal=${3:-TERM}
  kill_and_wait "$(<"$dir/$n/pid")" "$signal"
  rm -f "$dir/$n/pid"
}

start() {
  local dir=$1 n=$2
  [[ -e $dir/$n/pid ]] && { echo "broker $n of $dir is running" >&2; return 1; }
  launch "$dir" "$n"
  await "$dir" "$n"
}

launch() {
  local dir=$1 n=$2
  java -Xmx512m -XX:+UseSerialGC -Dlog4j2.configurationFile="$dir/log4j2.properties" -Dkafka.log="$dir/$n/server.log" \
    -cp "$kafka_lib/*" kafka.Kafka "$dir/$n/server.properties" >>"$dir/$n/out.log" 2>&1 </dev/null &
  echo $! >"$dir/$n/pid"
}

# Waits until broker N accepts connections; with its process gone there is nothing to wait for.
await() {
  local dir=$1 n=$2 port
  port=$(<"$dir/$n/port")
  for _ in $(seq 600); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
    kill -0 "$(<"$dir/$n/pid")" 2>/dev/null || break
    sleep 0.1
  done
  echo "broker $n of $dir did not start:" >&2
  tail -n 20 "$dir/$n/out.log" "$dir/$n/server.log" >&2
  return 1
}

# Signals a process and, when that does not end it in 20 s, kills it.
kill_and_wait() {
  local pid=$1 signal=$2
  kill "-$signal" "$pid" 2>/dev/null || return 0
  for _ in $(seq 200); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
}

write_properties() {
  local dir=$1 n=$2 brokers=$3 voters=$4
  local replicas=$((brokers < 3 ? brokers : 3))
  cat <<PROPERTIES
process.roles=broker,controller
node.id=$n
controller.quorum.voters=$voters
listeners=PLAINTEXT://127.0.0.1:${ports[2 * n - 2]},CONTROLLER://127.0.0.1:${ports[2 * n - 1]}
advertised.listeners=PLAINTEXT://127.0.0.1:${ports[2 * n - 2]}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/$n/data
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=6000
log.cleaner.backoff.ms=500
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500
log.segment.delete.delay.ms=1000
$(tr ';' '\n' <<<"${KAFKA_EXTRA:-}")
PROPERTIES
}

write_log4j() {
  cat <<'LOG4J'
appenders = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = ${sys:kafka.log}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{ISO8601} %p %c{1} %m%n
rootLogger.level = WARN
rootLogger.appenderRef.file.ref = file
LOG4J
}

main "$@"
