# The README's two commands are `make bracket` and `make test`; `make` lists them all.
VENV ?= .venv
MODEL ?= smollm2-135m
PAIRS ?= capitals
PROMPT_TOKENS ?= 1,2
OUT ?= runs/first-light
# Test workers; each holds a torch of its own, about 1 GB.
JOBS ?= 2
# More for pytest: make test ARGS="-k store".
ARGS ?=

BIN := $(VENV)/bin
# A waiting OpenMP thread that spins costs a shared machine more than it gains.
export OMP_WAIT_POLICY := PASSIVE
export VENV

.PHONY: help bootstrap environment bracket readme-figure test test-fast replay-matrix lint lines format docs clean
.DEFAULT_GOAL := help

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

bootstrap: ## Make or refresh .venv; instant when nothing changed
	@sh tools/bootstrap.sh

environment:
	@sh tools/bootstrap.sh lenient

bracket: bootstrap ## How much fits in 1 and 2 prompt tokens: found, proved, and a report
	$(BIN)/promptlimits bracket --model $(MODEL) --pairs $(PAIRS) --prompt-tokens $(PROMPT_TOKENS) --out $(OUT)

readme-figure: bracket ## docs/bracket.svg, the picture of the README, from that bracket
	$(BIN)/promptlimits report $(OUT) --plot docs/bracket.svg

test: bootstrap ## All tests but those that need a GPU
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu" -n $(JOBS) $(ARGS)

test-fast: bootstrap ## The unit tier alone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu and not slow" -n $(JOBS) $(ARGS)

replay-matrix: bootstrap ## Replay witnesses under the lowest and newest transformers and PEFT allowed
	OMP_NUM_THREADS=1 $(BIN)/python tools/replay_matrix.py

lint: environment ## Style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

lines: environment ## Lines of code in each room, beside its cap
	$(BIN)/python tools/lines.py

format: environment ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: environment ## The documentation, in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

clean: ## Remove what commands made; .venv and runs stay
	rm -rf docs/_build docs/_generated .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
