# The two commands: `make` runs the whole pipeline at smoke scale, `make test` runs the tests.
PYTHON ?= python3
CORES ?= all
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: smoke test lint bench paper report clean

smoke: .venv/installed
	snakemake --cores $(CORES) --configfile config/smoke.yaml --quiet rules
	@cat logs/tabulate_results/smoke.txt
	@echo "The report: reports/smoke/index.html"

test: lint
	pytest

lint: .venv/installed
	ruff format --check .
	ruff check .
	mypy
	snakefmt --check Snakefile workflow

# How fast the layers are on this CPU, beside other libraries' LSTMs. Eight to thirteen minutes; leave the machine alone.
bench: .venv/installed
	snakemake --cores $(CORES) --forcerun measure_latency -- bench

# The paper's grid. Days on a laptop: see the README for clusters, mirrors and word vectors.
paper: .venv/installed
	snakemake --cores $(CORES)

# The paper scale's tables, figures and page from the records that are there; what was not run says so.
report: .venv/installed
	python -m skimrnn table --config config/paper.yaml --results results --output reports/paper
	python -m skimrnn figures --config config/paper.yaml --results results --output reports/paper/figures
	python -m skimrnn claims --config config/paper.yaml --results results --output reports/paper
	python -m skimrnn page --config config/paper.yaml --results results --figures reports/paper/figures \
		--output reports/paper/index.html

.venv/installed: requirements.lock pyproject.toml CMakeLists.txt $(wildcard skimrnn/kernels/cpp/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11: run make PYTHON=python3.11 (or newer)"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet -r requirements.lock
	.venv/bin/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf .venv .snakemake data runs logs benchmarks results/smoke reports/smoke
