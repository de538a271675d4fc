# The two commands: `make` runs the whole pipeline at smoke scale, `make test` runs the tests.
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin

.PHONY: smoke test lint bench paper report clean

smoke: .venv/installed
	$(BIN)/snakemake --cores $(CORES) --configfile config/smoke.yaml --quiet rules
	@cat logs/tabulate_results/smoke.txt || true
	@echo "The report: reports/smoke/index.html"

test: lint
	$(BIN)/pytest

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow

# How fast the layers are on this CPU, beside other libraries' LSTMs. Eight to thirteen minutes; leave the machine alone.
bench: .venv/installed
	$(BIN)/snakemake --cores $(CORES) --forcerun measure_latency -- bench

# The paper's grid. Days on a laptop: see the README for clusters, mirrors and word vectors.
paper: .venv/installed
	$(BIN)/snakemake --cores $(CORES)

# The paper scale's tables, figures and page from the records that are there; what was not run says so.
report: .venv/installed
	$(BIN)/python -m skimrnn table --config config/paper.yaml --results results --output reports/paper
	$(BIN)/python -m skimrnn figures --config config/paper.yaml --results results --output reports/paper/figures
	$(BIN)/python -m skimrnn claims --config config/paper.yaml --results results --output reports/paper
	$(BIN)/python -m skimrnn page --config config/paper.yaml --results results --figures reports/paper/figures \
		--output reports/paper/index.html

.venv/installed: requirements.lock pyproject.toml CMakeLists.txt $(wildcard skimrnn/kernels/cpp/*)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "error: $(PYTHON) is not Python 3.11, 3.12 or 3.13: run make PYTHON=python3.13 (say)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# What `make` makes. Downloads, weights and checkpoints of other scales stay: they may have taken days. So does what
# Snakemake remembers of them (.snakemake), without which it would not see that a setting of theirs has changed.
clean:
	rm -rf .venv logs benchmarks results/smoke reports/smoke runs/smoke data/*/smoke data/*/smoke.* data/*/embedded
