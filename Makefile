# Two commands for a new user: make demo, make test.  Each sets itself up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Stamps: what the virtual environment has, so that the demo need not wait for test tools.
DEMO_READY := $(VENV)/.demo-ready
READY      := $(VENV)/.test-ready
BENCH_READY := $(VENV)/.bench-ready
WHEELS_READY := $(VENV)/.wheels-ready

.PHONY: demo test fuzz simulate compare benchmark bench bench-peers integration check format dist wheels clean help

help:
	@echo "make demo         three nodes, killed while you watch; nothing acknowledged is lost"
	@echo "make test         the tests that need nothing but Python"
	@echo "make fuzz         INPUTS=1000000 of them, made up, to the readers; stops at a failure"
	@echo "make simulate     SEEDS=1000 clusters in one process, with faults; stops at a failure"
	@echo "make compare      the same on PySyncObj's own journal, side by side"
	@echo "make benchmark    beside PySyncObj's own journals: throughput, latency, a start"
	@echo "make bench        the log by itself: saves, reading back, threads, growth; some minutes"
	@echo "make bench-peers  the same beside etcd's log and nine others; makes docs/performance.md"
	@echo "make integration  the tests beside other software, and the long ones"
	@echo "make check        types and lint"
	@echo "make dist         wheel and sdist into dist/"
	@echo "make wheels       wheels for the common platforms into dist/"

$(DEMO_READY) $(READY) $(BENCH_READY) $(WHEELS_READY): pyproject.toml setup.py $(wildcard raftwal/native/*.[ch])
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(patsubst .%-ready,%,$(notdir $@))]'
	@touch $@

demo: $(DEMO_READY)
	$(BIN)/python -m examples.demo

test: $(READY) check
	$(BIN)/pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

INPUTS ?= 1000000
fuzz: $(READY)
	PYTHONPATH=.:tests $(BIN)/python -m fuzzing --inputs $(INPUTS)

# Seeds from FIRST on; MEMBERS=--members has nodes join and leave, too.
SEEDS ?= 1000
FIRST ?= 0
simulate: $(READY)
	$(BIN)/python -m integration.simulation --seeds $(SEEDS) --first $(FIRST) $(MEMBERS)

# The table in docs/guarantees.md: the same schedules on PySyncObj's own journal.
compare: $(READY)
	$(BIN)/python -m integration.simulation.comparison --seeds $(SEEDS) --first $(FIRST)

# The tables in docs/benchmarks.md; the data goes to build/benchmarks, which must be a disk.
benchmark: $(READY)
	$(BIN)/python -m integration.benchmarks cluster
	$(BIN)/python -m integration.benchmarks recovery

# Neither needs a compiler: what is not here is left out, and the run says so.  OPTIONS are
# those of `python -m integration.benchmarks peers --help`.
RESULTS := build/benchmarks/peers.json
bench: $(DEMO_READY)
	$(BIN)/python -m integration.benchmarks alone $(OPTIONS)

bench-peers: $(BENCH_READY)
	$(BIN)/python -m integration.benchmarks peers --profile --json $(RESULTS) $(OPTIONS)
	$(BIN)/python -m integration.benchmarks report $(RESULTS)

integration: $(READY) $(BENCH_READY)
	bash integration/run.sh $(BIN)

dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

# Zig's C compiler makes them all on one machine, with the headers of any Python from 3.11 on.
# The last one, without the native twin, is for whatever has no other.
WHEELS := x86_64-linux-gnu.2.17=manylinux2014_x86_64 aarch64-linux-gnu.2.17=manylinux2014_aarch64 \
	x86_64-linux-musl=musllinux_1_2_x86_64 aarch64-linux-musl=musllinux_1_2_aarch64 \
	x86_64-macos.11.0=macosx_11_0_x86_64 aarch64-macos.11.0=macosx_11_0_arm64
wheels: $(WHEELS_READY)
	rm -rf dist
	set -e; for wheel in $(WHEELS); do \
	  rm -rf build/lib* build/temp* build/bdist*; \
	  cc="$(abspath $(BIN))/python -m ziglang cc -target $${wheel%%=*} -g0 -s"; \
	  CC="$$cc" LDSHARED="$$cc -shared -Wl,-undefined,dynamic_lookup" RAFTWAL_REQUIRE_NATIVE=1 \
	    $(BIN)/python -m build --wheel --outdir dist -C--build-option=--plat-name=$${wheel#*=} .; \
	done
	rm -rf build/lib* build/temp* build/bdist*
	RAFTWAL_PURE_PYTHON=1 $(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
