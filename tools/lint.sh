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

types_checked() {
    wait "$mypy" || checked=$?
    cat .cache/mypy
    return "${checked:-0}"
}

# The longest goes beside all the others.
mkdir -p .cache
.venv/bin/mypy >.cache/mypy 2>&1 &
mypy=$!
check 'ruff check' .venv/bin/ruff check --quiet .
check 'ruff format' .venv/bin/ruff format --check --quiet --diff .
check 'import contracts' .venv/bin/lint-imports --no-logo
check 'shellcheck' shellcheck --shell=sh tools/*.sh .ci/run
check 'generated docs' .venv/bin/python -m pipelines.docs --check
check 'mypy' types_checked

[ -z "$failed" ] || { printf 'lint: FAILED:%s see above\n' "$failed" >&2; exit 1; }
