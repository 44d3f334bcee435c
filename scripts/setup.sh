#!/usr/bin/env bash
# Makes .venv ready: packages, then the native build. Usage: scripts/setup.sh run|dev|train
#   run    what the program needs          dev    also tests, linters, torch, the oracles          train  also torch
# A second call does nothing when its inputs have not changed: each step leaves a stamp keyed on their content.
# Whatever is missing is said in one sentence; what pip and cmake print goes to build/setup.log.
# Knows nothing of what the package does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
MODE=${1:-run}
VENV=.venv
PY=$VENV/bin/python
LOG=build/setup.log

fail() { echo "motet setup: $*" >&2; exit 1; }
say() { echo "motet setup: $*"; }
hash_of() { { echo "$PWD"; "$PY" --version; cat "$@"; } | sha256sum | cut -c1-16; }
elapsed() { echo "$((SECONDS - BEGAN)) s"; }

good_python() { # 3.11 or newer, with venv and the C headers
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
  local name found=""
  for name in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14 python}; do
    command -v "$name" >/dev/null 2>&1 || continue
    found=$name
    if good_python "$name"; then command -v "$name"; return; fi
  done
  if [ -n "$found" ]; then
    fail "$("$found" --version 2>&1) is too old; install Python 3.11 or newer, or name one with 'make run PYTHON=/path/to/python3.11'."
  fi
  fail "no Python found; install Python 3.11 or newer (Debian: apt-get install python3 python3-venv python3-dev)."
}

check_compiler() {
  local cxx=${CXX:-}
  if [ -z "$cxx" ]; then
    for cxx in c++ g++ clang++ ""; do [ -n "$cxx" ] && command -v "$cxx" >/dev/null 2>&1 && break; done
  fi
  [ -n "$cxx" ] && command -v "${cxx%% *}" >/dev/null 2>&1 ||
    fail "no C++ compiler found; install g++ or clang++ (Debian: apt-get install g++), or name one with CXX."
  echo 'int main() { if constexpr (true) return 0; }' | $cxx -std=c++17 -x c++ -fsyntax-only - 2>>"$LOG" ||
    fail "the C++ compiler '$cxx' cannot compile C++17 (see $LOG); install g++ 10 or newer, or name another with CXX."
}

check_headers() {
  "$PY" -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' ||
    fail "the C headers of $("$PY" --version) are missing; install them (Debian: apt-get install python3-dev)."
}

make_venv() {
  if [ -x "$PY" ] && good_python "$PY" && "$PY" -m pip --version >/dev/null 2>&1; then return; fi
  local python
  python=$(find_python) || exit 1
  say "making $VENV with $("$python" --version)"
  rm -rf "$VENV"
  "$python" -m venv "$VENV" >>"$LOG" 2>&1 || {
    rm -rf "$VENV"
    fail "a virtual environment cannot be made (see $LOG); check that this folder is writable and that the venv module is there (Debian: apt-get install python3-venv)."
  }
}

pip() { # shows one line per package that is fetched, keeps the rest in the log
  { "$PY" -m pip --disable-pip-version-check "$@" 2>&1 || echo "motet-setup-failed"; } | tee -a "$LOG" |
    awk '/^ *Downloading .*\.(whl|gz)/ { n = split($2, part, "/"); printf "  fetching %s %s\n", part[n], $3 $4; fflush() }
         /^Installing collected/ { print "  installing"; fflush() }
         /motet-setup-failed/ { bad = 1 }
         END { exit bad }'
}

explain_pip() { # one sentence for what the log shows
  if grep -qiE 'no space left' "$LOG"; then fail "the disk is full; free about 4 GB and run make again."; fi
  if grep -qiE 'NewConnectionError|Temporary failure in name|Network is unreachable|ConnectTimeout|Max retries|ProxyError|Failed to establish|getaddrinfo|timed out' "$LOG"; then
    fail "the package index cannot be reached (see $LOG); check the network, or point pip at a mirror with PIP_INDEX_URL."
  fi
  fail "pip could not install the packages (see the end of $LOG)."
}

requirements() { # the lists in pyproject.toml, one requirement a line
  "$PY" - "$MODE" <<'PYTHON'
import shutil, sys, tomllib
data = tomllib.load(open("pyproject.toml", "rb"))
wanted = data["build-system"]["requires"] + data["project"]["dependencies"]
wanted += [tool for tool, name in (("cmake>=3.18", "cmake"), ("ninja", "ninja")) if not shutil.which(name)]
extras = data["project"]["optional-dependencies"]
wanted += {"run": [], "train": extras["train"], "dev": extras["dev"] + extras["train"] + extras["eval"]}[sys.argv[1]]
print("\n".join(dict.fromkeys(wanted)))
PYTHON
}

install_packages() {
  local stamp
  requirements >"$VENV/requirements-$MODE.txt"
  stamp=$VENV/stamp-packages-$MODE-$(hash_of "$VENV/requirements-$MODE.txt")
  [ -e "$stamp" ] && return
  say "packages for '$MODE' (the first time takes a minute or more)"
  pip install -r "$VENV/requirements-$MODE.txt" || explain_pip
  if [ "$MODE" = dev ]; then pip install --no-deps "bfcl-eval>=2026.3" || explain_pip; fi # for its cases, see pyproject.toml
  rm -f "$VENV"/stamp-packages-"$MODE"-*
  touch "$stamp"
  say "packages ready after $(elapsed)"
}

build_native() {
  local sources stamp
  mapfile -t sources < <(find native CMakeLists.txt pyproject.toml -type f | LC_ALL=C sort)
  stamp=$VENV/stamp-native-$(hash_of "${sources[@]}")
  [ -e "$stamp" ] && return
  check_compiler
  check_headers
  say "compiling the native kernels (about a minute the first time)"
  # The environment's own cmake and ninja count too, when the system has none.
  PATH="$PWD/$VENV/bin:$PATH" "$PY" -m pip --disable-pip-version-check install -q --no-deps --no-build-isolation -e . >>"$LOG" 2>&1 || {
    grep -iE 'error' "$LOG" | tail -3 >&2 || true
    fail "the native build failed (see the end of $LOG); if the compiler is older than g++ 10 or clang 12, install a newer one."
  }
  rm -f "$VENV"/stamp-native-*
  touch "$stamp"
  say "native kernels ready after $(elapsed)"
}

BEGAN=$SECONDS
case $MODE in run | dev | train) ;; *) fail "unknown mode '$MODE'; choose run, dev or train." ;; esac
mkdir -p build 2>/dev/null || fail "this folder is not writable; copy the project to one that is."
: >"$LOG"
make_venv
install_packages
build_native
