#!/bin/sh
# Everything that can be known of the tree without running emi. Says which check failed; runs them all.
set -u
cd "$(dirname "$0")/.." || exit
failed=

check() { # NAME COMMAND...
    name=$1
    shift
    printf 'lint: %s\n' "$name"
    "$@" || failed="$failed $name,"
}

check 'ruff check' .venv/bin/ruff check --quiet .
check 'ruff format' .venv/bin/ruff format --check --quiet --diff .
check 'mypy' .venv/bin/mypy
check 'import contracts' .venv/bin/lint-imports --no-logo
check 'shellcheck' shellcheck --shell=sh tools/*.sh .ci/run
check 'generated docs' .venv/bin/python -m pipelines.docs --check

[ -z "$failed" ] || { printf 'lint: FAILED:%s see above\n' "$failed" >&2; exit 1; }
