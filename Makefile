# Everything a person needs. `make run` and `make test` work with Python 3.11+ and make alone.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: run test lint sbom fuzz bench bench-eta bench-peers bench-month bench-no-show bench-outbox bench-restore bench-stream bench-suspend chaos soak-payments lock clean

run: $(VENV)/.runtime
	exec $(BIN)/xinglin serve --demo $(ARGS)

# Servers that tests use come from Debian's packages: installed when root, else named, and their tests skipped.
test: $(VENV)/.dev
	$(BIN)/python -m tests.support.debian
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml actors engine integrations web

# What we are made of, as CycloneDX: build/sbom.json lists every locked package with its hashes.
sbom: $(VENV)/.dev
	mkdir -p build
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-format JSON -o build/sbom.json requirements.lock

# Hours instead of seconds, with other requests each time.
fuzz: $(VENV)/.dev
	XINGLIN_FUZZ_EXAMPLES=$${XINGLIN_FUZZ_EXAMPLES:-200} $(BIN)/python -m pytest --timeout 0 -s tests/integration/test_fuzz.py $(ARGS)

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-eta: $(VENV)/.dev
	$(BIN)/python -m benchmarks.eta $(ARGS)

bench-peers: $(VENV)/.dev
	$(BIN)/python -m benchmarks.peers.run $(ARGS)

bench-month: $(VENV)/.dev
	$(BIN)/python -m benchmarks.month $(ARGS)

bench-no-show: $(VENV)/.dev
	$(BIN)/python -m benchmarks.no_show $(ARGS)

bench-outbox: $(VENV)/.dev
	$(BIN)/python -m benchmarks.outbox $(ARGS)

bench-restore: $(VENV)/.dev
	$(BIN)/python -m benchmarks.restore $(ARGS)

bench-stream: $(VENV)/.dev
	$(BIN)/python -m benchmarks.stream $(ARGS)

bench-suspend: $(VENV)/.dev
	$(BIN)/python -m benchmarks.suspend $(ARGS)

chaos: $(VENV)/.dev
	$(BIN)/python -m benchmarks.chaos $(ARGS)

soak-payments: $(VENV)/.dev
	$(BIN)/python -m benchmarks.payments $(ARGS)

# The lock files hold names, versions and hashes; never an address.
lock: $(VENV)/.dev
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --extra dev pyproject.toml -o requirements-dev.lock

$(VENV)/.runtime: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) .xinglin .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
