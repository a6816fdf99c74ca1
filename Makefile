# Each target sets up what it needs in .venv; a second run finds it there and starts immediately.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PACKAGES := config dashboard alerts billing metering tenants common demo bench fake_stripe tests
CHROMIUM := /usr/bin/chromium
COMPILE = uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
	--generate-hashes --no-header --no-emit-index-url --no-emit-find-links

.PHONY: run test lint bench soak pictures lock chromium clean

run: .venv/run.stamp
	@exec $(BIN)/python -m config.supervisor --under-make

# One process per core runs tests, at most four. PYTEST passes arguments on:
# make test PYTEST="tests/config -k environment"; "-n 0" runs them in one process, as with pytest.
test: .venv/dev.stamp chromium
	$(BIN)/python -m pytest -n logical --maxprocesses 4 $(PYTEST)

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy manage.py $(PACKAGES)
	$(BIN)/lint-imports
	$(BIN)/python requirements/check_addresses.py

# BENCH passes arguments on, as PYTEST does.
bench: .venv/run.stamp
	$(BIN)/python -m bench $(BENCH)

# The long form of tests/test_soak.py, a part of an hour (docs/proof.md):
# make soak SOAK="--operations 250000 --seed 1 --folder /var/tmp/soak"
soak: .venv/run.stamp
	$(BIN)/python -m bench.soak $(SOAK)

# The pictures of README, from the demo that `make run` has started and loaded; looks for faults of
# these pages, too.
pictures: .venv/dev.stamp chromium
	$(BIN)/python -m tests.dashboard.walk_pictures $${DATA_DIR:-.data} $(CHROMIUM)

# Resolves requirements/*.in again; needs uv. The locked files hold hashes and no addresses.
lock:
	$(COMPILE) requirements/run.in -o requirements/run.txt
	$(COMPILE) requirements/dev.in -o requirements/dev.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.venv/run.stamp: requirements/run.txt requirements/install.sh
	@sh requirements/install.sh "$(PYTHON)" run
	@touch $@

# The packages for development include those of the service, in the same versions.
.venv/dev.stamp: requirements/dev.txt requirements/run.txt requirements/install.sh
	@sh requirements/install.sh "$(PYTHON)" dev
	@touch .venv/run.stamp $@

# The page tests drive Debian's Chromium. Without it they are skipped, and this says so.
chromium:
	@test -x $(CHROMIUM) || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		&& echo "Installing Chromium for the page tests ..." && apt-get update -qq >/dev/null \
		&& apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1; } \
		|| echo "Page tests will be skipped: they need $(CHROMIUM) (apt-get install chromium)."
