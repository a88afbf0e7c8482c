# Two commands do everything on a fresh machine: `make demo` and `make test`.
VENV ?= .venv
PY := $(VENV)/bin/python
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
# a file of tests stays together, because its servers and repositories are made once; in the order of folders, since files
# with few tests are often slow ones, and would come last; more processes than the two processors that there may be,
# because tests wait a third of their time, for servers, for leases and for children
PYTEST_OPTIONS ?= --numprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: install demo test suite faults proof lint format bench serve lock clean tools

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

test: install tools  ## everything
	# the checks need one processor, while the first tests wait for their servers
	$(MAKE) --no-print-directory --jobs 2 lint suite

suite: install
	# what is compiled is kept, or every program that a test starts would compile it again
	PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -m "not long" $(PYTEST_OPTIONS)

# what tests try by a few seeds, whole: hours; each part says its cases, its seed and what it found, and all of them run
FAULTS := campaign tier_faults far_kills far_server pairs mutations
faults: install tools  ## everything that can go wrong, at every place where it can: see docs/reliability.md
	@failed=; for part in $(FAULTS); do echo "== $$part"; $(PY) -m tests.faults.$$part || failed="$$failed $$part"; done; \
	LASTGOOD_PROOF=whole $(PY) -m pytest tests/proof || failed="$$failed proof"; \
	$(PY) -m pytest -m long tests || failed="$$failed long"; \
	LASTGOOD_WHOLE=1 $(PY) -m pytest $(PYTEST_OPTIONS) tests/blocks/sources/redis || failed="$$failed redis"; \
	if [ -n "$$failed" ]; then echo "faults in:$$failed"; exit 1; fi

proof: install tools  ## write docs/proof.md anew: faults that are planted, and what finds each
	LASTGOOD_PROOF=write $(PY) -m pytest tests/proof

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
