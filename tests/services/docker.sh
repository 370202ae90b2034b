#!/usr/bin/env bash
# A Docker Engine for tests: up [--own] | image [busybox|python|digits PIP] | restart [--kill] | down | status.
#
# `up` prints the address of a socket. It takes the engine that KICKWHEEL_TEST_DOCKER, DOCKER_HOST or the machine's own
# socket leads to, and only where there is none starts a dockerd of its own (root): data, sockets, process id file and
# containerd namespace of its own, no bridge and no packet filter, so that nothing of the machine's is touched. With
# --own it starts one in any case: tests of faults restart theirs. What `up` made is written in the folder
# $KICKWHEEL_SERVICES (by default one of the cache), so that a second `up` finds it again; `down` ends and removes it.
#
# `image` makes kickwheel-test/busybox:1 (Debian's busybox-static) and kickwheel-test/python:1 (python3-minimal by
# debootstrap from this machine's own package sources; its files are kept in $KICKWHEEL_CACHE). `image digits PIP` makes
# and prints the image of the demo's project: Debian's Python with the wheels of its requirements, which the program PIP
# fetches. No registry of images is needed.
set -euo pipefail

keep=${KICKWHEEL_CACHE:-${HOME:?}/.cache/kickwheel}
cache=${KICKWHEEL_SERVICES:-$keep/services}
record=$cache/docker.env

say() { printf 'docker: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
answers() { docker --host "$1" info >/dev/null 2>&1; }
needs() { command -v "$1" >/dev/null 2>&1 || die "$1 was not found; ./dev setup installs it (package $2)"; }

# Sets folder, address and daemon when a dockerd of ours is recorded.
recorded() {
  [ -f "$record" ] || return 1
  # shellcheck disable=SC1090
  . "$record"
}

is_ours_up() { recorded && [ -f "$folder/pid" ] && kill -0 "$(cat "$folder/pid")" 2>/dev/null && answers "$address"; }

# Prints the address of an engine that somebody else runs. Whoever names one gets that one or none.
foreign() {
  local candidate candidates=("${DOCKER_HOST:-}" unix:///var/run/docker.sock)
  [ -z "${KICKWHEEL_TEST_DOCKER:-}" ] || candidates=("$KICKWHEEL_TEST_DOCKER")
  for candidate in "${candidates[@]}"; do
    case $candidate in unix://*) ;; *) continue ;; esac
    if answers "$candidate"; then echo "$candidate"; return; fi
  done
  return 1
}

start_daemon() {
  local id
  id=$(basename "$folder")
  # A namespace of its own: the machine's containerd, where there is one, may serve the machine's dockerd too.
  (cd / && exec setsid dockerd --host "$address" --data-root "$folder/data" --exec-root "$folder/exec" \
    --pidfile "$folder/pid" --containerd-namespace "$id" --containerd-plugins-namespace "$id-plugins" \
    --bridge none --iptables=false --ip6tables=false --shutdown-timeout 10 >>"$folder/log" 2>&1 </dev/null) &
  local daemon=$! waited=0
  until answers "$address"; do
    if ! kill -0 "$daemon" 2>/dev/null || [ "$waited" -eq 600 ]; then
      tail -n 20 "$folder/log" >&2
      die "dockerd does not answer at $address"
    fi
    sleep 0.1
    waited=$((waited + 1))
  done
}

stop_daemon() {
  [ -f "$folder/pid" ] || return 0
  local pid waited=0
  pid=$(cat "$folder/pid")
  kill "-${1:-TERM}" "$pid" 2>/dev/null || { rm -f "$folder/pid"; return 0; }
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.1
    waited=$((waited + 1))
    if [ "$waited" -eq 300 ]; then kill -KILL "$pid" 2>/dev/null || true; fi
    if [ "$waited" -eq 400 ]; then die "dockerd $pid does not end"; fi
  done
  # A killed daemon leaves the file, and the next one would take it for a living one's.
  rm -f "$folder/pid"
}

up() {
  if is_ours_up; then echo "$address"; return; fi
  needs docker docker.io
  if [ "${1:-}" != --own ] && foreign; then return; fi
  needs dockerd docker.io
  [ "$(id -u)" -eq 0 ] || die "dockerd needs root; run one yourself and name its socket in KICKWHEEL_TEST_DOCKER=unix:///…"
  mkdir -p "$cache"
  if ! recorded; then
    local folder address
    # Not in the cache folder: the address of a socket holds 107 bytes.
    folder=$(mktemp -d "${TMPDIR:-/tmp}/kickwheel-docker.XXXXXX")
    address=unix://$folder/socket
    printf 'folder=%q\naddress=%q\n' "$folder" "$address" >"$record"
  fi
  start_daemon
  echo "$address"
}

restart() {
  recorded || die "restart: there is no dockerd of ours; \`up --own\` starts one"
  case ${1:-} in
    '') stop_daemon TERM ;;
    --kill) stop_daemon KILL ;;
    *) die "restart: unknown option $1; only --kill is known" ;;
  esac
  start_daemon
}

down() {
  recorded || { echo "docker: not started by us"; return; }
  if [ -f "$folder/pid" ]; then
    local pid
    pid=$(cat "$folder/pid")
    if answers "$address"; then
      # Containers that ignore SIGTERM would hold up the end.
      local running
      mapfile -t running < <(docker --host "$address" ps --quiet)
      [ "${#running[@]}" -eq 0 ] || docker --host "$address" kill "${running[@]}" >/dev/null 2>&1 || true
    fi
    stop_daemon TERM
    echo "docker: stopped (pid $pid)"
  fi
  # A daemon that was killed has left the mounts of its containers.
  local left
  mapfile -t left < <(awk -v below="$folder/" 'index($2, below) == 1 {print $2}' /proc/mounts | sort -r)
  [ "${#left[@]}" -eq 0 ] || umount --lazy "${left[@]}" || true
  case $folder in */kickwheel-docker.*) rm -rf "$folder" || die "$folder cannot be removed; is something mounted below it?" ;; esac
  rm -f "$record"
}

status() {
  if is_ours_up; then
    echo "docker: running, pid $(cat "$folder/pid"), $address"
  elif foreign >/dev/null; then
    echo "docker: not started by us, but there is one at $(foreign)"
  else
    echo "docker: not running"
  fi
}

has_image() { docker --host "$1" image inspect "$2" >/dev/null 2>&1; }

image() {
  local socket wanted=${1:-all}
  shift || true
  if is_ours_up; then socket=$address; else socket=$(foreign) || die "image: no engine answers; \`up\` starts one"; fi
  case $wanted in
    all | busybox) image_busybox "$socket" ;;&
    all | python) image_python "$socket" ;;
    busybox) ;;
    digits) image_digits "$socket" "${1:?image digits: which pip}" ;;
    *) die "image: $wanted is unknown; busybox, python or digits" ;;
  esac
}

image_busybox() {
  has_image "$1" kickwheel-test/busybox:1 && return
  local busybox root
  busybox=$(command -v busybox) || die "busybox was not found; ./dev setup installs it (package busybox-static)"
  root=$(mktemp -d)
  mkdir -p "$root/bin" "$root/etc" "$root/tmp"
  chmod 1777 "$root/tmp"
  cp "$busybox" "$root/bin/busybox"
  # A busybox with a program loader would start nowhere in an image without libraries.
  chroot "$root" /bin/busybox true 2>/dev/null || { rm -rf "$root"; die "$busybox is not static; install busybox-static"; }
  local applet
  for applet in $("$busybox" --list); do [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"; done
  printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$root/etc/passwd"
  tar -C "$root" -c . | docker --host "$1" import --change 'CMD ["sh"]' - kickwheel-test/busybox:1 >/dev/null
  rm -rf "$root"
  say "made kickwheel-test/busybox:1"
}

# The first address that this machine's own package sources name.
package_mirror() {
  awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /^http/) {print $i; exit}}' \
    /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null
}

# shellcheck disable=SC1091
release_name() { . /etc/os-release && echo "${VERSION_CODENAME:?}"; }

# Makes a small Debian in FOLDER/root with a package of Python, without what a container never reads.
small_debian() {
  local folder=$1 package=$2
  needs debootstrap debootstrap
  [ "$(id -u)" -eq 0 ] || die "debootstrap needs root: run this once as root, with the same KICKWHEEL_CACHE"
  debootstrap --variant=minbase --include="$package" "$(release_name)" "$folder/root" "$(package_mirror)" >"$folder/log" 2>&1 \
    || { tail -n 20 "$folder/log" >&2; rm -rf "$folder"; die "debootstrap failed"; }
  (cd "$folder/root" && rm -rf var/cache/apt/archives var/lib/apt/lists usr/share/doc usr/share/locale)
}

# Packs FOLDER/root into the file given, all of it or nothing, and removes the folder.
keep_files() {
  tar -C "$1/root" -cf "$2.$$" .
  mv "$2.$$" "$2"
  rm -rf "$1"
}

image_python() {
  has_image "$1" kickwheel-test/python:1 && return
  local files root
  files=$keep/test-image-python-$(release_name).tar
  if ! [ -f "$files" ]; then
    mkdir -p "$keep"
    root=$(mktemp -d "$keep/test-image.XXXXXX")
    say "making the files of kickwheel-test/python:1 (about a minute, once)"
    small_debian "$root" python3-minimal
    keep_files "$root" "$files"
  fi
  docker --host "$1" import --change 'CMD ["python3"]' "$files" kickwheel-test/python:1 >/dev/null
  say "made kickwheel-test/python:1"
}

# Fills FOLDER/root: Debian's Python, and the project's pinned requirements for exactly that Python and that C library.
digits_files() {
  local folder=$1 requirements=$2 pip=$3 python libc minor platforms=()
  small_debian "$folder" python3
  python=$(chroot "$folder/root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  libc=$(chroot "$folder/root" ldd --version | sed -n '1s/.*[ .]\([0-9]*\)$/\1/p')
  # A wheel names the oldest C library that it runs with.
  for ((minor = libc; minor >= 17; minor--)); do platforms+=(--platform "manylinux_2_${minor}_$(uname -m)"); done
  "$pip" install --quiet --disable-pip-version-check --no-compile --only-binary=:all: --implementation cp \
    --python-version "$python" "${platforms[@]}" --target "$folder/root/usr/lib/python3/dist-packages" \
    --requirement "$requirements" >&2 || { rm -rf "$folder"; die "pip could not fetch the wheels for Python $python"; }
  find "$folder/root/usr/lib/python3/dist-packages" -type d -name tests -prune -exec rm -rf {} +
  # Jobs run as nobody and could not keep what Python compiles: without this, each would compile all of it again.
  chroot "$folder/root" python3 -m compileall -q -j 0 /usr/lib/python3/dist-packages >"$folder/log" 2>&1 || true
  chroot "$folder/root" setpriv --reuid 65534 --regid 65534 --clear-groups python3 -W ignore -c 'import sklearn.neural_network' \
    || { rm -rf "$folder"; die "scikit-learn cannot be imported in the new image"; }
}

image_digits() {
  local requirements key name files folder
  requirements=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/workflows/digits/requirements.txt
  key=$( (declare -f small_debian digits_files && release_name && uname -m && cat "$requirements") | sha256sum | cut -c1-12)
  name=kickwheel-demo/digits:$key
  if ! has_image "$1" "$name"; then
    files=$keep/demo-image-$key.tar
    if ! [ -f "$files" ]; then
      mkdir -p "$keep"
      folder=$(mktemp -d "$keep/demo-image.XXXXXX")
      say "making the files of $name from Debian's packages (one to four minutes, once)"
      digits_files "$folder" "$requirements" "$2"
      keep_files "$folder" "$files"
    fi
    docker --host "$1" import --change 'CMD ["python3"]' "$files" "$name" >/dev/null
    say "made $name"
  fi
  echo "$name"
}

case ${1:-} in
  up | down | status | image | restart) "$@" ;;
  *) echo "usage: docker.sh up [--own]|image [busybox|python|digits PIP]|restart [--kill]|down|status" >&2; exit 2 ;;
esac
