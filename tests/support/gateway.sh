# Sourced by the scripts in tests/, which have a `say` of their own: a gateway to test, which ends with the script.
# serve: starts $HOOKGATE, or a debug build if none is named, with $home/hookgate.toml. Its HOST:PORT is then in $address.
home="$(mktemp -d)"
gateway=
finish() {
  if [[ -n "$gateway" ]]; then
    kill "$gateway" 2> /dev/null || true
    wait "$gateway" 2> /dev/null || true
  fi
  rm -rf "$home"
}
trap finish EXIT

serve() {
  if [[ -z "${HOOKGATE:-}" ]]; then
    cargo build --quiet --locked
    HOOKGATE="${CARGO_TARGET_DIR:-target}/debug/hookgate"
  fi
  : > "$home/log"
  "$HOOKGATE" serve --json --config "$home/hookgate.toml" 2> "$home/log" &
  gateway=$!
  for _ in {1..600}; do
    address="$(sed -n '/"message":"serving"/ s|.*"address":"https\?://\([^"]*\)".*|\1|p' "$home/log")"
    [[ -z "$address" ]] || return 0
    kill -0 "$gateway" 2> /dev/null || break
    sleep 0.1
  done
  say "the gateway does not serve:"
  cat "$home/log" >&2
  exit 1
}
