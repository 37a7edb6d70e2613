# make demo   install everything, run all stages, convert a song
# make test   install everything, run all tests, print the ten slowest
# make lint   run ruff
#
# Packages are installed into .venv, which $(PYTHON) creates; an active virtual environment is used instead.

PYTHON ?= python3
export PYTHONUTF8 = 1

ifdef VIRTUAL_ENV
ENV := $(VIRTUAL_ENV)
CONSTRAINTS :=
else
ENV := .venv
CONSTRAINTS := -c constraints.txt
endif
RUN := $(ENV)/bin/python

.PHONY: demo test lint clean

demo: $(ENV)/.installed
	$(RUN) demo.py

test: $(ENV)/.installed-dev
	$(RUN) -m pytest -n auto --dist loadfile --durations=10

lint: $(ENV)/.installed-dev
	$(RUN) -m ruff check .

$(ENV)/bin/python:
	$(PYTHON) -m venv $(ENV)

$(ENV)/.installed: requirements.txt requirements-convert.txt constraints.txt | $(ENV)/bin/python
	$(RUN) -m pip install --disable-pip-version-check -q -r requirements.txt $(CONSTRAINTS)
	touch $@

$(ENV)/.installed-dev: requirements-dev.txt $(ENV)/.installed
	$(RUN) -m pip install --disable-pip-version-check -q -r requirements-dev.txt $(CONSTRAINTS)
	touch $@

clean:
	rm -rf .venv demo_run .pytest_cache .ruff_cache
