#!/usr/bin/env bash
# The packaged model and its judges, from nothing: every stage in order, each of them going on where it stopped.
#   all.sh FOLDER [OPTIONS OF training.train]
# Its process id stands in FOLDER/pid; SIGTERM or Ctrl-C ends it at a checkpoint, and the same command goes on from there.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
folder="${1:?a folder for the run}"
shift
python="${PYTHON:-python3}"
export PYTHONPATH="$(dirname "$here"):$(dirname "$(dirname "$here")")${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
mkdir -p "$folder"
echo $$ > "$folder/pid"
child=
trap 'kill -TERM "$child" 2>/dev/null; wait "$child" || true; exit 143' TERM INT
stage() {
  "$python" -m "training.$1" --out "$folder/$2" "${@:3}" &
  child=$!
  wait "$child"
}
stage train puppet "$@"
stage judges judges
