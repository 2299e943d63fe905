.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint docs lock bench clean
# EMI_HOME is where emi keeps its state; tests use their own.

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' Makefile | while read -r name what; do printf '  make %-9s %s\n' "$$name" "$$what"; done

setup: ## install what is missing: Debian packages, then .venv
	@tools/setup.sh

demo: setup ## build a real Debian image and register it in the embedded cloud
	@.venv/bin/emi run recipes/debian-12.yaml

test: setup lint ## lint, then all tests but the long sweeps (at most 20 minutes on 2 cores)
	.venv/bin/pytest -n 3 -m 'not sweep' --durations=15

test-all: setup lint ## lint, then all tests, the long sweeps too
	.venv/bin/pytest -n 3 --durations=15

lint: setup ## ruff, mypy, import contracts, shellcheck, generated docs
	@tools/lint.sh

docs: setup ## write the generated pages: steps, errors, the recipes' schema, the sandbox's behaviour
	@.venv/bin/python -m pipelines.docs
	@PYTHONPATH=. .venv/bin/python tools/behaviour.py

lock: setup ## pin the Python packages anew, with hashes
	@tools/lock.sh

bench: setup ## the benchmarks, each beside a named peer
	@tools/setup.sh --bench
	@tools/bench.sh

clean: ## remove what make and the tests left in the tree (not EMI_HOME)
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
