# Pushfan's commands. They need Python 3.11 or newer and make; everything else they install into .venv.
#
#   make demo                 install, then fan out to thousands of simulated devices     DEMO_ARGS='--calm'
#   make test                 install, then run all tests                                 TEST_ARGS='-k wire'
#   make chaos                install, then kill, cut and flood until something gives  CHAOS_ARGS='--devices 20000'
#   make cases                install, then 40,000 requests made from the OpenAPI document, 40,000 events  CASES=20
#   make mutants              install, then remove each protection in a copy: chaos must notice  MUTANTS_ARGS='--only fence'
#   make check                install, then lint, types, floors, deploy files
#   make bench                install, then measure what it costs here (an hour)          BENCH_ARGS='direct --quick'
#   make bench-check          install, then compare a quick run's ratios with the recorded ones
#   make install              .venv with Pushfan, its local servers and the developer's tools
#
#   PYTHON=python3.13         the interpreter to use; otherwise the first one that fits
#   JOBS=2                    how many test processes

PYTHON ?=
DEMO_ARGS ?=
TEST_ARGS ?=
CHAOS_ARGS ?=
MUTANTS_ARGS ?=
BENCH_ARGS ?=
CASES = 150
JOBS = 2
CANDIDATES = python3 python3.13 python3.12 python3.11 python3.14 python

# A caller's modules must not stand in front of ours: the floors have everyday names.
unexport PYTHONPATH PYTHONHOME

.PHONY: help install demo test cases chaos mutants bench bench-check check

help:
	@sed -n '/^#/!q; s/^#$$//; s/^# //; p' Makefile

demo: install
	@.venv/bin/pushfan demo $(DEMO_ARGS)

test: install
	@.venv/bin/python -m pytest -n $(JOBS) --dist worksteal $(TEST_ARGS)

# -s shows how many there were. The seeds are fixed; PUSHFAN_TEST_SCHEMA_SEED chooses another one.
cases: install
	@PUSHFAN_TEST_SCHEMA_CASES=$(CASES) PUSHFAN_TEST_WIRE_EXAMPLES=20000 \
	    .venv/bin/python -m pytest -s --timeout=3600 tests/integration/http/test_schema.py tests/unit/events/test_wire.py

chaos: install
	@.venv/bin/python -m tests.chaos.tour $(CHAOS_ARGS)

mutants: install
	@.venv/bin/python -m tests.chaos.mutants $(MUTANTS_ARGS)

bench: install
	@.venv/bin/python -m bench $(BENCH_ARGS)

bench-check: install
	@.venv/bin/python -m bench --check $(BENCH_ARGS)

check: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy events providers registry workers gateway bench tests
	.venv/bin/python -m pytest -q tests/unit/test_floors.py
	PATH="$$PWD/.venv/bin:$$PATH" sh deploy/check.sh

# .venv remembers the place and the pyproject.toml that it was made from, and the PYTHON that was asked for. While
# these are the same, nothing is done.
install:
	@set -eu; \
	wanted="$$(pwd; cat pyproject.toml)"; \
	have="$$(cat .venv/installed-from 2>/dev/null || :)"; \
	asked="$$(cat .venv/asked-python 2>/dev/null || :)"; \
	fresh=--clear; \
	if .venv/bin/python -c 'import pip' 2>/dev/null; then \
	    if [ -z '$(PYTHON)' ] || [ '$(PYTHON)' = "$$asked" ]; then fresh=; fi; \
	fi; \
	if [ -z "$$fresh" ] && [ "$$wanted" = "$$have" ]; then exit 0; fi; \
	if IFS= read -r place 2>/dev/null <.venv/installed-from && [ "$$place" != "$$(pwd)" ]; then fresh=--clear; fi; \
	if [ -n "$$fresh" ]; then \
	    python=; old=; bare=; \
	    for candidate in $(or $(PYTHON),$(CANDIDATES)); do \
	        found="$$("$$candidate" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null)" || continue; \
	        if ! "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	            old="$$old $$candidate is $$found;"; \
	        elif ! "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then \
	            bare="$$candidate"; \
	        else \
	            python="$$candidate"; break; \
	        fi; \
	    done; \
	    if [ -z "$$python" ] && [ -n "$$bare" ]; then \
	        echo "Pushfan: $$bare cannot make virtual environments, its modules venv and ensurepip are missing." >&2; \
	        echo "On Debian and Ubuntu: apt install python3-venv. Or name another one: make PYTHON=/path/to/python3" >&2; \
	        exit 1; \
	    fi; \
	    if [ -z "$$python" ]; then \
	        echo "Pushfan needs Python 3.11 or newer; found:$${old:- none of $(or $(PYTHON),$(CANDIDATES))}" >&2; \
	        echo "Name one that is not on the PATH: make PYTHON=/path/to/python3" >&2; \
	        exit 1; \
	    fi; \
	    echo "Making .venv with $$python ($$found)"; \
	    "$$python" -m venv --clear .venv; \
	    printf '%s' '$(PYTHON)' >.venv/asked-python; \
	fi; \
	rm -f .venv/installed-from; \
	echo "Installing Pushfan and what it needs into .venv (a minute or two, only this once)"; \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[local,dev]'; \
	printf '%s\n' "$$wanted" >.venv/installed-from
