# Every target makes .venv by itself when it is missing or older than what it is made from.
PYTHON ?= python3
EXTRAS ?= dev
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(EXTRAS)
PYTEST := $(BIN)/python -m pytest --quiet --durations=10 \
	--numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-all check lint types wheel docs matrix sbom sign bench clean

help:
	@echo "make venv    .venv with the pinned packages (EXTRAS=$(EXTRAS))"
	@echo "make demo    the whole path on the embedded images, into demo_out/"
	@echo "make test    the tests, without the slow ones"
	@echo "make test-all  every test"
	@echo "make check   lint, types, every test and the wheel: what must pass before a commit"
	@echo "make docs    the documentation site, into site/ (EXTRAS=docs installs no other tools)"
	@echo "make matrix  install and test with the lowest and highest versions, for PYTHON=$(PYTHON)"
	@echo "make sbom    list the pinned packages in CycloneDX, into dist/sbom.json"
	@echo "make sign    check the digests of the packaged checkpoints, and sign them with KEY=..."
	@echo "make bench   measure throughput, into benchmarks/results/"
	@echo "make clean   remove what these targets made, .venv included"

venv: $(STAMP)

# No build isolation: an isolated build would fetch a setuptools that constraints.txt does not pin.
# No warnings: setuptools warns on every editable install of a folder named as its package.
$(STAMP): pyproject.toml setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "vae_aug needs Python 3.11 or later; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV); the first time takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--no-build-isolation --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)
	$(BIN)/vae-aug demo

test: $(STAMP)
	$(PYTEST) -m 'not slow and not walk' $(PYTEST_ARGS)

test-all: $(STAMP)
	$(PYTEST) $(PYTEST_ARGS)

check: lint types test-all wheel

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

wheel: $(STAMP)
	$(BIN)/python -m build --no-isolation --outdir dist .

# The variable leaves out an advertisement for the successor of the theme (ADR 29).
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

matrix:
	$(PYTHON) benchmarks/matrix.py

# In an environment of its own: cyclonedx-bom needs other versions than constraints.txt pins.
sbom:
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/python -m pip install --quiet cyclonedx-bom==7.5.0
	mkdir -p dist
	PYTHONWARNINGS=ignore build/sbom/bin/cyclonedx-py requirements --pyproject pyproject.toml \
		--mc-type library --output-reproducible --output-file dist/sbom.json constraints.txt

# KEY is the private key of whoever releases; SECURITY.md tells how the signature is checked.
sign:
	@test -n "$(KEY)" || { echo "make sign wants KEY=FILE, the private key of whoever releases"; exit 1; }
	rm -f docs/checkpoints/SHA256SUMS.sig
	sha256sum --check docs/checkpoints/SHA256SUMS
	ssh-keygen -Y sign -f "$(KEY)" -n vae_aug docs/checkpoints/SHA256SUMS

bench: $(STAMP)
	$(BIN)/python benchmarks/throughput.py

clean:
	rm -rf $(VENV) build dist site demo_out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
