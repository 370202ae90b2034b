#!/bin/bash
# Builds the plugins of this folder into a folder of its own and compares them with the committed ones of dist/.
#
#   plugins/build.sh            builds, compares the BEHAVIOUR of both over recorded calls, and fails if it differs
#   plugins/build.sh --update   builds and, if the new ones pass those calls, replaces dist/
#
# Not bytes: they depend on the compiler's version. The toolchain is the first of: rustup's wasm32-unknown-unknown, rustup's
# wasm32-wasip2, or Debian's rustc-web unpacked (not installed) under ${KICKWHEEL_CACHE:-~/.cache/kickwheel}.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${KICKWHEEL_CACHE:-$HOME/.cache/kickwheel}
update=no
case "${1:-}" in
  --update) update=yes ;;
  '') ;;
  *) echo "usage: $0 [--update]" >&2; exit 2 ;;
esac
plugins=(best-of metrics-gate model-promote)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
built=$scratch/built
mkdir "$built"

# Paths of this machine must not end up in the panic messages of a component.
remap="--remap-path-prefix=$here=plugins --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"

# Unpacks Debian's WASM compiler. All packages must be of one version, because the standard library is built from source.
fetch_debian_toolchain() {
  local root=$1 version series debs
  version=$(apt-cache policy rustc-web | awk '/Candidate:/ {print $2}')
  if [ -z "$version" ] || [ "$version" = "(none)" ]; then
    echo "no WASM toolchain: run \`rustup target add wasm32-unknown-unknown\` (Debian's rustc-web is not available here)" >&2
    exit 1
  fi
  if [ "$(cat "$root/version" 2>/dev/null || true)" = "$version" ]; then return; fi
  echo "unpacking Debian's rustc-web $version into $root"
  rm -rf "$root" && mkdir -p "$root"
  debs=$scratch/debs
  mkdir "$debs"
  series=$(cut -d. -f1,2 <<<"$version")
  (cd "$debs" && apt-get -q download "rustc-web=$version" "libstd-rust-web-$series=$version" "libstd-rust-web-dev=$version" \
    "rust-web-src=$version" "rust-web-llvm=$version" libllvm22 lld-22)
  for deb in "$debs"/*.deb; do dpkg -x "$deb" "$root"; done
  echo "$version" > "$root/version"
}

targets=$(rustup target list --installed 2>/dev/null || true)
build=(build --release --locked --manifest-path "$here/Cargo.toml" --target-dir "$scratch/target")
for plugin in "${plugins[@]}"; do build+=(-p "$plugin"); done

echo "building ${plugins[*]}"
if grep -qx wasm32-unknown-unknown <<<"$targets"; then
  target=wasm32-unknown-unknown
  RUSTFLAGS="$remap" cargo "${build[@]}" --target "$target"
elif grep -qx wasm32-wasip2 <<<"$targets"; then
  target=wasm32-wasip2
  RUSTFLAGS="$remap" cargo "${build[@]}" --target "$target"
else
  target=wasm32-unknown-unknown
  root=$cache/rustc-web
  fetch_debian_toolchain "$root"
  cargo=$(rustup which cargo 2>/dev/null || command -v cargo)
  # `RUSTC_BOOTSTRAP`: building the standard library is not a stable feature of cargo, and Debian ships none for this target.
  LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/usr/lib/llvm-22/lib PATH=$root/usr/lib/llvm-22/bin:$root/usr/bin:$PATH \
    RUSTC_BOOTSTRAP=1 RUSTC=$root/usr/bin/rustc RUSTFLAGS="$remap --remap-path-prefix=$root=rust" \
    "$cargo" "${build[@]}" --target "$target" -Zbuild-std=std,panic_abort
fi

# `./dev plugins` has built the host's side with everything else; alone it would resolve to other features, and the sandbox
# would be compiled again for minutes.
host() {
  if [ -n "${KICKWHEEL_EXAMPLES:-}" ]; then
    local example=$1
    shift 2
    "$KICKWHEEL_EXAMPLES/$example" "$@"
  else
    cargo run -q --locked --manifest-path "$here/../Cargo.toml" -p kickwheel-wasm --example "$@"
  fi
}
for plugin in "${plugins[@]}"; do
  module=$scratch/target/$target/release/${plugin//-/_}.wasm
  if [ "$target" = wasm32-wasip2 ]; then
    cp "$module" "$built/$plugin.wasm"
  else
    host componentize -- "$module" "$built/$plugin.wasm"
  fi
done
rm -rf "$scratch/target"

if [ "$update" = yes ]; then
  mkdir -p "$here/dist"
  cp "$built"/*.wasm "$here/dist/"
  echo "dist/ is updated; \`cargo test -p kickwheel-wasm\` tests it"
else
  host compare_plugins -- "$here" "$here/dist" "$built"
fi
