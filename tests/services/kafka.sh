#!/usr/bin/env bash
# A private Apache Kafka for tests: up | down | status | stop | start | wipe | join N | leave N | recreate TOPIC |
# read BROKERS TOPIC | forget BROKERS PREFIX.
#
# It needs java (17 or newer), maven and python3. One process in KRaft mode is broker and controller, on free ports of
# 127.0.0.1, and never touches a broker that is there already. `up` prints its address, 127.0.0.1:PORT, and nothing else
# on standard output. `stop` ends the process and keeps data and port, `start` brings the same broker back: that is what
# fault tests need. `wipe` brings it back on its port with nothing in it, as after the loss of a disk. `recreate` deletes
# a topic and makes it again, empty and under a new id. `join` adds a further broker, N (2 or more), to the cluster, or
# brings it back, and prints its address; `leave` ends it by force and keeps its data. `down` ends it and removes all. What `up` made is written in the
# folder $KICKWHEEL_SERVICES (by default one of the cache), so that a second `up` finds it again. Kafka's libraries are
# fetched once, by Maven, into $KICKWHEEL_CACHE/kafka-VERSION.
#
# Two work with any broker, by Kafka's own tools: `read` prints all records of a topic, one a line: partition, offset, key
# and value, parted by tabs. `forget` deletes the topics whose names begin with PREFIX and a dot.
set -euo pipefail

version=4.1.0
cache_root=${KICKWHEEL_CACHE:-${HOME:?}/.cache/kickwheel}
cache=${KICKWHEEL_SERVICES:-$cache_root/services}
libs=$cache_root/kafka-$version
record=$cache/kafka.env

fetch_libs() {
  if [ -d "$libs" ]; then return; fi
  local tool
  for tool in java mvn; do
    command -v "$tool" >/dev/null || { echo "kafka: $tool was not found; ./dev setup installs it" >&2; return 1; }
  done
  echo "kafka: fetching Apache Kafka $version (once)" >&2
  mkdir -p "$cache_root"
  local new
  # A folder of its own for each try, and one rename at the end: two that fetch at once do not disturb each other, and a
  # half-finished download is never taken for a whole one.
  new=$(mktemp -d "$libs.new.XXXXXX")
  cat >"$new/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>kickwheel</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <!-- Kafka's libraries log through SLF4J 1.7 and bring nothing that writes: without it a failed start says nothing. -->
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
  if ! mvn --quiet --batch-mode -Dstyle.color=never --file "$new/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$new" -DincludeScope=runtime >&2; then
    rm -rf "$new"
    return 1
  fi
  if ! mv --no-target-directory "$new" "$libs" 2>/dev/null; then
    rm -rf "$new"
    [ -d "$libs" ] || { echo "kafka: $libs could not be written" >&2; return 1; }
  fi
}

load_record() {
  [ -f "$record" ] || return 1
  # shellcheck disable=SC1090
  . "$record"
}

# A process id may have been given to another program since: the folder in its command line says that it is ours.
is_up() {
  load_record || return 1
  local pid home=${1:-$folder}
  pid=$(cat "$home/pid" 2>/dev/null) || return 1
  # Null bytes part the words of a command line, so it is compared as text with them taken out.
  [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$home/server.properties"
}

free_ports() {
  python3 - <<'PY'
import socket
taken = [socket.socket() for _ in range(2)]
for s in taken:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in taken))
PY
}

# An open port is not yet a broker. This asks for the list of brokers (Metadata, version 1, no topics) until one is in it:
# a broker joins the list when it is ready to serve.
wait_until_it_answers() {
  python3 - "$1" "$2" "$3" <<'PY'
import os, socket, struct, sys, time
port, pid, deadline = int(sys.argv[1]), int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
body = struct.pack(">hhih", 3, 1, 1, 2) + b"kw" + struct.pack(">i", 0)

def brokers():
    with socket.create_connection(("127.0.0.1", port), timeout=2) as s:
        s.sendall(struct.pack(">i", len(body)) + body)
        answer = b""
        while len(answer) < 12:
            more = s.recv(4096)
            if not more:
                return 0
            answer += more
        return struct.unpack(">iii", answer[:12])[2]

while time.monotonic() < deadline:
    try:
        if brokers() > 0:
            sys.exit(0)
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        sys.exit("kafka: the process ended while it started")
    time.sleep(0.1)
sys.exit("kafka: no answer in time")
PY
}

tool() {
  java -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$libs/*" "$@"
}

# Starts the broker whose settings are in a folder, on its port, and waits for it.
launch() {
  local home=${1:-$folder} port=${2:-$port}
  # In a session of its own, so that the end of a terminal or of a test runner is not its end. A small heap and the quick
  # compiler only: it starts in seconds and leaves the processors to the tests.
  (
    cd "$home"
    exec setsid java -Xmx384m -Xms128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData \
      -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true -cp "$libs/*" \
      kafka.Kafka "$home/server.properties" >>"$home/log" 2>&1 </dev/null
  ) &
  local pid=$!
  echo "$pid" >"$home/pid"
  wait_until_it_answers "$port" "$pid" 60 && return
  halt "$pid" || true
  tail -n 20 "$home/log" >&2
  return 1
}

# Asks the process to end, waits, and ends it by force when it does not.
halt() {
  local pid=$1 waited=0
  kill -TERM "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.1
    waited=$((waited + 1))
    if [ "$waited" -eq 150 ]; then kill -KILL "$pid" 2>/dev/null || true; fi
    if [ "$waited" -eq 250 ]; then echo "kafka: pid $pid does not end" >&2; return 1; fi
  done
}

configure() {
  # Internal topics have one partition and one replica: there is one broker, and each partition costs start-up time. A
  # topic that a test deletes must stay away until somebody makes it again, so nothing is created by itself.
  cat >"$folder/server.properties" <<CONF
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$controller_port
log.dirs=$folder/data
auto.create.topics.enable=false
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
log.initial.task.delay.ms=1000
file.delete.delay.ms=1000
CONF
}

format() {
  local id
  # A cluster's id is 16 bytes in URL-safe base64 without padding.
  id=$(python3 -c 'import base64, os; print(base64.urlsafe_b64encode(b"kw" + os.urandom(14)).decode().rstrip("="))')
  tool kafka.tools.StorageTool format -t "$id" -c "$folder/server.properties" >"$folder/format.log" 2>&1 \
    || { cat "$folder/format.log" >&2; return 1; }
}

up() {
  if is_up; then echo "127.0.0.1:$port"; return; fi
  # One that was stopped, or that a restart of the machine ended, keeps its data and its port.
  if load_record && [ -d "$folder/data" ]; then start; echo "127.0.0.1:$port"; return; fi
  fetch_libs
  mkdir -p "$cache"
  folder=$(mktemp -d "${TMPDIR:-/tmp}/kickwheel-kafka.XXXXXX")
  # Another program may take a port between the look and the start: a few tries.
  local try
  for try in 1 2 3; do
    read -r port controller_port < <(free_ports)
    configure
    if ! [ -d "$folder/data" ]; then format || { rm -rf "$folder"; return 1; }; fi
    if launch; then
      printf 'folder=%q\nport=%q\n' "$folder" "$port" >"$record.new"
      mv "$record.new" "$record"
      echo "127.0.0.1:$port"
      return
    fi
    echo "kafka: start on port $port failed (try $try)" >&2
  done
  rm -rf "$folder"
  return 1
}

start() {
  if is_up; then echo "kafka: running already" >&2; return; fi
  load_record || { echo "kafka: there is no broker to start again; use up" >&2; return 1; }
  fetch_libs
  launch
  echo "kafka: started on port $port" >&2
}

stop() {
  if ! is_up; then echo "kafka: not running" >&2; return; fi
  local pid
  pid=$(cat "$folder/pid")
  halt "$pid"
  rm -f "$folder/pid"
  echo "kafka: stopped (pid $pid)${1:-, data kept}" >&2
}

wipe() {
  load_record || { echo "kafka: there is no broker to wipe; use up" >&2; return 1; }
  stop
  fetch_libs
  rm -rf "$folder/data"
  format
  launch
  echo "kafka: started empty on port $port" >&2
}

down() {
  if ! [ -f "$record" ]; then echo "kafka: not started by us"; return; fi
  if is_up; then stop " and removed"; fi
  load_record
  local home
  for home in "$folder"/broker-*; do
    if is_up "$home"; then halt "$(cat "$home/pid")"; fi
  done
  case $folder in */kickwheel-kafka.*) rm -rf "$folder" ;; esac
  rm -f "$record"
}

# A further broker: no controller, since what is tested is the copies of records and not elections.
join() {
  local number=${1:?kafka: join needs the number of a broker, 2 or more} home own
  is_up || { echo "kafka: the first broker does not run; use up" >&2; return 1; }
  home=$folder/broker-$number
  if [ -d "$home" ]; then
    own=$(sed -n 's#^advertised.listeners=.*:##p' "$home/server.properties")
  else
    mkdir "$home"
    read -r own _ < <(free_ports)
    sed -e 's/^process.roles=.*/process.roles=broker/' -e "s/^node.id=.*/node.id=$number/" -e "s#^log.dirs=.*#log.dirs=$home/data#" \
      -e "s#^listeners=.*#listeners=PLAINTEXT://127.0.0.1:$own#" \
      -e "s#^advertised.listeners=.*#advertised.listeners=PLAINTEXT://127.0.0.1:$own#" \
      "$folder/server.properties" >"$home/server.properties"
    local cluster
    cluster=$(sed -n 's/^cluster.id=//p' "$folder/data/meta.properties")
    tool kafka.tools.StorageTool format -t "$cluster" -c "$home/server.properties" >"$home/format.log" 2>&1 \
      || { cat "$home/format.log" >&2; return 1; }
  fi
  is_up "$home" || launch "$home" "$own"
  echo "127.0.0.1:$own"
}

leave() {
  local number=${1:?kafka: leave needs the number of a broker} pid
  load_record || { echo "kafka: not started by us" >&2; return 1; }
  is_up "$folder/broker-$number" || { echo "kafka: broker $number does not run" >&2; return 1; }
  pid=$(cat "$folder/broker-$number/pid")
  kill -KILL "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}

recreate() {
  local topic=${1:?kafka: recreate needs the name of a topic}
  is_up || { echo "kafka: not running" >&2; return 1; }
  local described partitions
  described=$(tool org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$port" --describe --topic "$topic")
  partitions=$(sed -n 's/.*PartitionCount: *\([0-9]*\).*/\1/p' <<<"$described" | head -n 1)
  tool org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$port" --delete --topic "$topic" >&2
  local waited=0
  # Deletion is not finished when it is answered: the name is free a moment later.
  until tool org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$port" \
    --create --topic "$topic" --partitions "${partitions:-1}" >&2; do
    waited=$((waited + 1))
    if [ "$waited" -eq 10 ]; then echo "kafka: $topic could not be made again" >&2; return 1; fi
  done
}

read_topic() {
  local brokers=${1:?kafka: read needs the address of a broker} topic=${2:?kafka: read needs the name of a topic} count
  fetch_libs
  # The consumer cannot tell that it has reached the end; so it is told how many there are.
  count=$(tool org.apache.kafka.tools.GetOffsetShell --bootstrap-server "$brokers" --topic "$topic" |
    awk -F: '{ n += $3 } END { print n + 0 }')
  [ "$count" -gt 0 ] || return 0
  tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$brokers" --topic "$topic" --from-beginning \
    --max-messages "$count" --timeout-ms 60000 --property print.partition=true \
    --property print.offset=true --property print.key=true \
    2> >(grep -v '^Processed a total' >&2) | sed -u 's/^Partition:\([0-9]*\)\tOffset:\([0-9]*\)\t/\1\t\2\t/'
}

forget() {
  local brokers=${1:?kafka: forget needs the address of a broker} prefix=${2:?kafka: forget needs a prefix}
  fetch_libs
  tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$brokers" --delete --if-exists --topic "${prefix//./\\.}\..*" >&2
}

status() {
  if is_up; then echo "kafka: running, pid $(cat "$folder/pid"), 127.0.0.1:$port"
  elif [ -f "$record" ]; then echo "kafka: stopped, data kept"
  else echo "kafka: not running"; fi
}

case ${1:-} in
  up | down | status | stop | start | wipe) "$1" ;;
  recreate | join | leave) "$1" "${2:-}" ;;
  read) read_topic "${2:-}" "${3:-}" ;;
  forget) forget "${2:-}" "${3:-}" ;;
  *) echo "usage: kafka.sh up|down|status|stop|start|wipe|join N|leave N|recreate TOPIC|read BROKERS TOPIC|forget BROKERS PREFIX" >&2; exit 2 ;;
esac
