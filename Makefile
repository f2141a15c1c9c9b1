# `make demo` shows the whole way, `make test` runs every test, `make bench` measures (BIG=1: the large sizes) and keeps
# what it found in bench.json; each sets up what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test lint bench clean
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "pfstore needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	@rm -rf demo
	@$(BIN)/pfstore demo demo

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m bench $(if $(BIG),--big) --out bench.json

clean:
	rm -rf .venv demo
