# make demo   everything once: install, draw a training set, train, export, infer without torch
# make test   a new environment, and every test in it
# make lint   ruff, mypy, import-linter (in the environment of make test)
# make docs   the documentation, docs/_build/html; its commands are run, warnings are errors

PYTHON ?= python3
DEMO := .demo
BIN := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint docs clean

demo: .venv/ready .venv-lite/ready
	.venv/$(BIN)/anna simulate -n 6000 --seed 1 -o $(DEMO)/train.h5
	.venv/$(BIN)/anna simulate -n 1000 --seed 2 -o $(DEMO)/validation.h5
	.venv/$(BIN)/anna simulate -n 12 --seed 3 --snr 200 --fits $(DEMO)/spectra
	.venv/$(BIN)/anna simulate -n 1000 --seed 4 -o $(DEMO)/test.h5
	.venv/$(BIN)/anna init --force --steps 3000 $(DEMO)/params.toml
	.venv/$(BIN)/anna train $(DEMO)/params.toml
	.venv/$(BIN)/anna export --onnx --runs $(DEMO)/runs -o $(DEMO)/model.onnx
	.venv/$(BIN)/anna test $(DEMO)/model.onnx $(DEMO)/test.h5 -o $(DEMO)/test
	@echo
	@echo "Now as the colleague who got model.onnx by e-mail, without torch:"
	.venv-lite/$(BIN)/anna-lite infer $(DEMO)/model.onnx $(DEMO)/spectra/*.fits -o $(DEMO)/results.csv
	@.venv-lite/$(BIN)/python -c "from astropy.table import Table; \
	t = Table.read('$(DEMO)/results.csv'); t.remove_columns(['file', 'hdu', 'row', 'message']); \
	[setattr(c.info, 'format', '.4g') for c in t.itercols() if c.dtype.kind == 'f']; \
	t.pprint(max_lines=-1, max_width=-1)"
	@echo
	@echo "table:  $(CURDIR)/$(DEMO)/results.csv"
	@echo "report: $(CURDIR)/$(DEMO)/test/report.html"

test: .venv-test/ready
	.venv-test/$(BIN)/python -m pytest

lint: .venv-test/ready
	.venv-test/$(BIN)/ruff check .
	.venv-test/$(BIN)/ruff format --check .
	.venv-test/$(BIN)/mypy
	.venv-test/$(BIN)/lint-imports

docs: .venv-docs/ready
	.venv-docs/$(BIN)/python -m sphinx -q -E -W --keep-going docs docs/_build/html
	@echo "docs/_build/html/index.html"

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	.venv/$(BIN)/python $(PIP) -c constraints.txt -e ".[train]"
	@touch $@

.venv-lite/ready: pyproject.toml
	$(PYTHON) -m venv --clear .venv-lite
	.venv-lite/$(BIN)/python $(PIP) .
	@touch $@

.venv-test/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-test
	.venv-test/$(BIN)/python $(PIP) -c constraints.txt -e ".[dev]"
	@touch $@

.venv-docs/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/$(BIN)/python $(PIP) -c constraints.txt -e ".[docs]"
	@touch $@

clean:
	rm -rf .venv .venv-lite .venv-test .venv-docs docs/_build docs/generated $(DEMO) build dist *.egg-info
