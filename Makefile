# SPDX-License-Identifier: Apache-2.0
# Two commands on a fresh machine: `make quickstart` and `make test`. Everything else is below.

PYTHON   ?= python3
PLATFORM ?= cpu
VENV     := .venv
PY       := $(VENV)/bin/python
LOCK     := $(if $(filter cpu,$(PLATFORM)),requirements.txt,requirements-$(PLATFORM).txt)
READY    := $(VENV)/.ready-$(PLATFORM)
TORCH    := $(VENV)/.ready-torch

DATA := data/quickstart
RUN  := runs/quickstart

.PHONY: setup quickstart test test-torch test-all lint types ci golden lock smoke clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## the environment .venv; PLATFORM=cpu|cuda|tpu

$(READY): $(LOCK)
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	    { echo "error: Python 3.11 or later is needed, give PYTHON=…"; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	    { rm -rf $(VENV); echo "error: the venv module is missing; install python3-venv"; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@touch $@

quickstart: $(READY)  ## data, training, evaluation, export: minutes on two CPU cores
	$(PY) -m tools.data.make_scenes --output $(DATA) --train 6000 --test 800 --workers 2
	$(PY) -m tools.data.train_tokenizer --store $(DATA)/train --output $(DATA)/tokenizer.model \
	    --vocab_size 512
	$(PY) -m mtv_jax.train --config configs/quickstart.py --workdir $(RUN)
	$(PY) -m mtv_jax.export --workdir $(RUN) --output $(RUN)/export
	$(PY) -m mtv_jax.evaluate --workdir $(RUN) --config configs/eval/scenes.py:data=$(DATA)
	$(PY) -m tools.report --workdir $(RUN)

test: $(READY)  ## tests that need neither PyTorch nor much time (20 to 30 minutes on two cores)
	$(PY) -m pytest -m "not slow"

$(TORCH): $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(PY) -m pip install --quiet --disable-pip-version-check "transformers>=5.23,<6"
	@touch $@

test-torch: $(TORCH)  ## tests against PyTorch and transformers
	$(PY) -m pytest -m torch

test-all: $(TORCH)  ## every test, however long; compiles for TPUs too
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes \
	    -r requirements-tpu.txt
	$(PY) -m pytest

lint: $(READY)  ## ruff
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: $(READY)  ## pyright on core, objectives, evaluators, training, views
	$(PY) -m pyright

ci: ## what continuous integration runs
	bash .ci/run

golden: $(READY)  ## rewrite the golden files; look at the diff before committing it
	$(PY) -m pytest tests/golden --rewrite_golden

smoke: $(READY)  ## a minute: train, evaluate, export once, on a handful of made images
	$(PY) -m pytest tests/integration -m "not slow" -k smoke

lock: $(READY)  ## recompile the hash-pinned requirements from pyproject.toml
	$(PY) -m uv pip compile -q -U --universal --generate-hashes --extra dev \
	    pyproject.toml -o requirements.txt
	$(PY) -m uv pip compile -q -U --universal --generate-hashes --extra dev --extra gpu \
	    pyproject.toml -o requirements-cuda.txt
	$(PY) -m uv pip compile -q -U --universal --generate-hashes --extra dev --extra tpu \
	    pyproject.toml -o requirements-tpu.txt

clean:  ## caches and runs; not the environment
	rm -rf .cache .pytest_cache .ruff_cache $(RUN) $(DATA)
