#!/usr/bin/env bash
# A private PostgreSQL cluster for tests: up | down | status | query URL SQL.
#
# `up` prints its URL. It runs as an unprivileged user on a free port of 127.0.0.1 with a password of its own, and never
# touches a server that is there already. `down` ends it by its process id and removes it. What `up` made is written in
# the folder $KICKWHEEL_SERVICES (by default one of the cache), so that a second `up` finds it again. `query` asks any
# server and prints the rows, their columns parted by tabs.
set -euo pipefail

cache=${KICKWHEEL_SERVICES:-${KICKWHEEL_CACHE:-${HOME:?}/.cache/kickwheel}/services}
record=$cache/postgres.env

bin_folder() {
  local tool
  if tool=$(command -v pg_config) && [ -x "$("$tool" --bindir)/initdb" ]; then "$tool" --bindir; return; fi
  # Debian keeps the server's programs outside of PATH, one folder per major version: the newest is taken.
  local newest
  newest=$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
  [ -n "$newest" ] || { echo "postgres: initdb was not found; ./dev setup installs it (package postgresql)" >&2; return 1; }
  dirname "$newest"
}

# PostgreSQL refuses to run as root. The package makes the user `postgres`; elsewhere `nobody` will do.
as_owner() {
  if [ "$(id -u)" -ne 0 ]; then "$@"; return; fi
  local user=postgres
  id -u postgres >/dev/null 2>&1 || user=nobody
  # The working folder may be one that this user cannot enter.
  (cd / && exec setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups env HOME=/tmp "$@")
}

is_up() {
  [ -f "$record" ] || return 1
  # shellcheck disable=SC1090
  . "$record"
  [ -f "$folder/data/postmaster.pid" ] && kill -0 "$(head -n 1 "$folder/data/postmaster.pid")" 2>/dev/null
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

up() {
  if is_up; then echo "$url"; return; fi
  local bin password port folder
  bin=$(bin_folder)
  mkdir -p "$cache"
  # Not in the cache folder: another user must reach it, and a home folder may be closed to others.
  folder=$(mktemp -d "${TMPDIR:-/tmp}/kickwheel-postgres.XXXXXX")
  if [ "$(id -u)" -eq 0 ]; then chown "$(as_owner id -u):$(as_owner id -g)" "$folder"; fi
  password=$(python3 -c 'import secrets; print(secrets.token_hex(16))')
  (umask 077 && printf '%s\n' "$password" >"$folder/password")
  if [ "$(id -u)" -eq 0 ]; then chown "$(as_owner id -u)" "$folder/password"; fi
  as_owner "$bin/initdb" --pgdata="$folder/data" --username=postgres --pwfile="$folder/password" \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C >"$cache/postgres-initdb.log" 2>&1 \
    || { cat "$cache/postgres-initdb.log" >&2; return 1; }
  # Another program may take the port between the look and the start: a few tries.
  local try
  for try in 1 2 3 4 5; do
    port=$(free_port)
    cat >>"$folder/data/postgresql.auto.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = '$folder'
max_connections = 300
CONF
    if as_owner "$bin/pg_ctl" --pgdata="$folder/data" --log="$folder/log" --wait --timeout=60 start >/dev/null; then
      local address="postgres://postgres:$password@127.0.0.1:$port/postgres"
      (umask 077 && printf 'folder=%q\nurl=%q\n' "$folder" "$address" >"$record")
      echo "$address"
      return
    fi
    echo "postgres: start on port $port failed (try $try)" >&2
  done
  cat "$folder/log" >&2
  rm -rf "$folder"
  return 1
}

down() {
  if ! [ -f "$record" ]; then echo "postgres: not started by us"; return; fi
  if is_up; then
    local pid
    pid=$(head -n 1 "$folder/data/postmaster.pid")
    # SIGINT is PostgreSQL's fast shutdown: clients are disconnected, the database stays whole.
    kill -INT "$pid"
    local waited=0
    while kill -0 "$pid" 2>/dev/null; do
      sleep 0.1
      waited=$((waited + 1))
      if [ "$waited" -eq 200 ]; then kill -QUIT "$pid" 2>/dev/null || true; fi
      if [ "$waited" -eq 300 ]; then echo "postgres: pid $pid does not end" >&2; return 1; fi
    done
    echo "postgres: stopped (pid $pid)"
  fi
  # shellcheck disable=SC1090
  . "$record"
  case $folder in */kickwheel-postgres.*) rm -rf "$folder" ;; esac
  rm -f "$record"
}

query() {
  local url=${1:?postgres: query needs a URL} sql=${2:?postgres: query needs a statement} psql
  psql=$(command -v psql) || psql=$(bin_folder)/psql
  "$psql" --no-psqlrc --quiet --no-align --tuples-only --field-separator=$'\t' --set=ON_ERROR_STOP=1 --command="$sql" "$url"
}

status() {
  if is_up; then echo "postgres: running, pid $(head -n 1 "$folder/data/postmaster.pid"), $url"; else echo "postgres: not running"; fi
}

case ${1:-} in
  up | down | status) "$1" ;;
  query) query "${2:-}" "${3:-}" ;;
  *) echo "usage: postgres.sh up|down|status|query URL SQL" >&2; exit 2 ;;
esac
