#!/usr/bin/env bash
# Makes the clients of others ready that tests/test_clients*.py run: .venv-clients (Python) and tests/clients/node_modules (npm).
# A second call does nothing when the lists have not changed. About a minute and 600 MB the first time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=.venv-clients
LOG=build/clients.log
fail() { echo "motet setup: $*" >&2; exit 1; }

[ -x .venv/bin/python ] || fail "run 'make setup-dev' first."
command -v npm >/dev/null || fail "npm is missing; install Node.js 20 or newer (Debian: apt-get install nodejs npm)."
mkdir -p build
STAMP=$VENV/stamp-$(cat tests/clients/requirements.txt tests/clients/package-lock.json | sha256sum | cut -c1-16)
[ -e "$STAMP" ] && [ -d tests/clients/node_modules ] && exit 0
echo "motet setup: clients for Python in $VENV and for Node.js in tests/clients (about a minute, 600 MB)"
[ -x "$VENV/bin/python" ] || .venv/bin/python -m venv "$VENV" >"$LOG" 2>&1 || fail "a virtual environment cannot be made (see $LOG)."
"$VENV/bin/python" -m pip --disable-pip-version-check install -q -r tests/clients/requirements.txt >>"$LOG" 2>&1 ||
  fail "pip could not install the clients (see the end of $LOG)."
(cd tests/clients && npm ci --no-fund --no-audit) >>"$LOG" 2>&1 || fail "npm could not install the clients (see the end of $LOG)."
rm -f "$VENV"/stamp-*
touch "$STAMP"
