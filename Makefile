# Two commands do everything on a fresh machine: `make demo` and `make test`.
VENV ?= .venv
PY := $(VENV)/bin/python
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
# a file of tests stays together, because its servers and repositories are made once
PYTEST_OPTIONS ?= --numprocesses 2 --dist loadfile

.PHONY: install demo test lint format bench serve lock clean tools

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(PY) || python3 -m venv $(VENV)
	# the lock is complete: without a resolver nothing but it can come in
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	touch $@

install: $(VENV)/.installed

demo: install  ## the whole story on an embedded example, ending with what it proved
	$(VENV)/bin/lastgood demo $(DEMO_OPTIONS)

tools:  ## the programs that tests compare with; installed where they are missing
	sh tests/tools.sh

test: install tools lint  ## everything
	$(PY) -m pytest $(PYTEST_OPTIONS)

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: install
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: install tools  ## see benchmarks/README.md
	$(PY) -m benchmarks

serve: install  ## all schedules of a plan in one process: make serve PLAN=plan.yaml
	$(VENV)/bin/lastgood serve $(or $(PLAN),deployments/plans/trading.yaml)

lock:  ## resolve pyproject.toml anew
	$(PY) -m pip install --quiet uv
	$(VENV)/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --no-strip-extras --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --output-file requirements.lock --quiet

clean:
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
