# Sourced by the scripts in tests/, which have a `say` of their own.
# need PACKAGE…: installs these packages of Debian (none: does nothing), or says what is missing and ends the script.
need() {
  (($#)) || return 0
  local root=() policy=/usr/sbin/policy-rc.d
  if ! type -P apt-get > /dev/null; then
    say "missing here, and there is no apt-get to install it with: $* (Debian's names)"
    exit 1
  fi
  if ((EUID != 0)); then
    if ! type -P sudo > /dev/null; then
      say "missing: $*; this is not root and there is no sudo. As root: apt-get install $*"
      exit 1
    fi
    root=(sudo)
  fi
  say "installing $*"
  (
    "${root[@]}" apt-get update -qq
    # Debian starts the servers that it installs, unless this program forbids it.
    if [[ ! -e "$policy" ]]; then
      trap '"${root[@]}" rm -f "$policy"' EXIT
      printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" > /dev/null
      "${root[@]}" chmod +x "$policy"
    fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" > /dev/null
  )
}

# Debian's redis-tools holds the server's program under the name redis-check-rdb; its redis-server package adds a link of that
# name, and a system service that nothing here wants started. So the link is made here, and the service is not installed.
link_redis() {
  type -P redis-server > /dev/null && return
  local program
  program="$(type -P redis-check-rdb)" || return 0
  mkdir -p target/tools
  ln -sf "$program" target/tools/redis-server
  PATH="$PWD/target/tools:$PATH"
  redis-server --version > /dev/null 2>&1 || rm -f target/tools/redis-server
}

# pypi FOLDER REQUIREMENT…: installs these packages of PyPI in a virtual environment, unless they are there. Returns 1, and says so,
# if PyPI cannot be reached. Ends the script if it can, and a package cannot be installed.
pypi() {
  local folder="$1" log
  shift
  [[ "$(cat "$folder/installed" 2> /dev/null)" != "$*" ]] || return 0
  python3 -c 'import ensurepip' 2> /dev/null || need python3-venv
  say "installing $*"
  rm -rf "$folder"
  python3 -m venv "$folder"
  log="$folder/log"
  if ! "$folder/bin/pip" install --disable-pip-version-check --retries 2 --only-binary :all: "$@" > "$log" 2>&1; then
    if grep -qE 'Retrying \(Retry|Could not fetch URL' "$log"; then
      say "PyPI cannot be reached, so these are not installed: $*"
      return 1
    fi
    cat "$log" >&2
    exit 1
  fi
  printf %s "$*" > "$folder/installed"
}
