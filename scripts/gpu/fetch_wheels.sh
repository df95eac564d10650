#!/usr/bin/env bash
# Downloads the wheels of wheels.txt for a GPU machine without network: fetch_wheels.sh [PYTHON'S VERSION, default 3.12]
# They come into scripts/gpu/wheels/VERSION, which git ignores and drill.sh finds, and weigh at most 12 MiB.
set -euo pipefail
cd "$(dirname "$0")"
version="${1:-3.12}"
folder="wheels/$version"
platforms=()
for name in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
  platforms+=(--platform "${name}_x86_64")
done
rm -rf "$folder"
"${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
  --python-version "$version" "${platforms[@]}" --dest "$folder" --requirement wheels.txt
bytes="$(cat "$folder"/*.whl | wc -c)"
awk -v bytes="$bytes" -v folder="scripts/gpu/$folder" \
  'BEGIN { printf "%s: %.1f MiB of at most 12\n", folder, bytes / 2^20; exit bytes > 12 * 2^20 }'
