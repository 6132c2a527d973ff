.PHONY: setup test lint check bench readme

setup:
	python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]'

test:
	.venv/bin/pytest -q -n auto

lint:
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/pyright && .venv/bin/lint-imports

check: lint test

bench:
	for file in benchmarks/*.py; do .venv/bin/python $$file; done

readme:
	.venv/bin/python .ci/readme.py
