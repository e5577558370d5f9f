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
