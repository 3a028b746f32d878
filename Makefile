PYTHON ?= .venv/bin/python

.PHONY: style check smoke test slow

style:  ## format and sort imports
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

check:  ## what CI asks for besides the tests
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff check --isolated --select F821,F823 .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

smoke:  ## the whole chain on a tiny network, about ten seconds
	$(PYTHON) -m pytest tests/test_smoke.py

test:  ## the fast tests
	$(PYTHON) -m pytest -m "not slow" -n auto --dist worksteal

slow:  ## the slow tier, minutes to hours
	$(PYTHON) -m pytest -m slow
