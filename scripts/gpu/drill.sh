#!/usr/bin/env bash
# The drill: what can be measured on a GPU in 8 minutes, network or not. See README.md beside this.
#   drill.sh [FOLDER] [--train]    results into FOLDER; default $OUT, else out/gpu
#   drill.sh --cpu [FOLDER]        a rehearsal at toy size on the CPU
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(dirname "$(dirname "$here")")"
python="${PYTHON:-python3}"
wheels="$here/wheels/$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
if [ -d "$wheels" ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
fi
export PYTHONPATH="$site:$root:$root/scripts${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
"$python" "$here/drill.py" "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null; wait "$child" || true; exit 143' TERM INT
wait "$child"
