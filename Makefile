# The commands of the project. Each does its own set-up: CMake builds under build/, Python environments under .venv*/.

PREFIX ?= /usr/local
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
PYTHON ?= python3
# What `make` and `make install` build: release, or cuda, which needs nvcc: for the GPUs of this machine, or for every
# GPU (a quarter of an hour) where there is none or with LIK_CUDA_ARCHS=all in the environment.
PRESET ?= release

.PHONY: help all demo test bench install uninstall amalgamation wheels dist wasm test-gpu bench-gpu test-hosts test-upstream mutants coverage clean

.DEFAULT_GOAL := all

# Lists these targets: the comment above each is its help.
help:
	@awk '/^# /{text = text substr($$0, 2)} /^[a-z-]+:/{name = $$1; sub(/:.*/, "", name); \
	  if (name != "help") printf "make %-13s%s\n", name, text; text = ""} /^$$/{text = ""}' Makefile

# The library and the command, in build/$(PRESET).
all:
	cmake --preset $(PRESET) $(CMAKE_ARGS)
	cmake --build --preset $(PRESET) -j $(JOBS)

# Ranks real documents for real queries and writes the heat map of one match.
demo:
	@$(MAKE) --no-print-directory all >build-demo.log 2>&1 || { cat build-demo.log; exit 1; }
	@rm -f build-demo.log
	@build/$(PRESET)/lik demo --data demo

# Builds everything and runs every test, an hour on two cores. `make test SUITES="check cli"` runs some, minutes each.
test:
	$(PYTHON) tests/run.py $(SUITES)

# The CPU table, with peers, in an environment of its own, then every level of this processor. `make bench ARGS=--quick`.
bench:
	bench/run.sh $(ARGS)
	bench/run.sh levels $(if $(findstring --quick,$(ARGS)),--rounds 3 --cases text)

# Copies library, header, command, manual page and completions below PREFIX (/usr/local).
install: all
	cmake --install build/$(PRESET) --prefix "$(PREFIX)"

# Removes what the last `make install` has installed.
uninstall:
	@test -f build/$(PRESET)/install_manifest.txt || { echo "nothing was installed from build/$(PRESET)"; exit 1; }
	sed "s|^|$(DESTDIR)|" build/$(PRESET)/install_manifest.txt | tr '\n' '\0' | xargs -0 rm -fv --
	@awk -v stage="$(DESTDIR)" '{sub("/[^/]*$$", ""); \
	  while (/\/lik(\/demo)?$$/) {print stage $$0; sub("/[^/]*$$", "")}}' build/$(PRESET)/install_manifest.txt | \
	  sort -ru | while read -r folder; do rmdir -- "$$folder" 2>/dev/null || :; done

# The documentation site, build/site/index.html, in an environment of its own (mkdocs-material, from PyPI); with the live page.
.PHONY: docs
docs: .venv-docs/requirements.stamp wasm
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet
	@echo build/site/index.html

.venv-docs/requirements.stamp: docs/site/requirements.txt
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check -r $<
	cp $< $@

# These need an NVIDIA GPU and nvcc.
# Runs the tests on a GPU.
test-gpu:
	tests/gpu/run.sh $(ARGS)

# The GPU's table.
bench-gpu:
	bench/gpu.sh $(ARGS)

# PyLate, colpali-engine and sentence-transformers beside the package, in environments of their own (about 2 GB each).
test-hosts:
	tests/hosts/run.sh $(ARGS)

# The existing package's own tests on this one. On a machine with a GPU: PYTHON names a python with torch for CUDA.
test-upstream:
	tests/upstream/run.py $(ARGS)

# Breaks the library in many places and says what the tests notice.
mutants:
	$(PYTHON) tests/mutants.py $(ARGS)

# Counts the lines and branches that the tests run.
coverage:
	$(PYTHON) tests/count_coverage.py

# The CPU library's C sources in one file, build/amalgamation/lik.c, with lik.h beside it.
amalgamation:
	$(PYTHON) cmake/amalgamate.py build/amalgamation

# Wheels for Linux, Windows and macOS, all on this machine, in dist/. `make wheels PLATFORMS=win_amd64` makes some.
wheels:
	$(PYTHON) cmake/wheels.py $(PLATFORMS)

# What a release consists of, in dist/: source archive, this platform's wheel, checksums; made twice, the same bytes.
# `make dist ARGS=--source`: the archive alone, in seconds.
dist:
	$(PYTHON) cmake/dist.py $(ARGS)

# The library for browsers and Node, with its JavaScript and the live page, in build/wasm.
wasm:
	$(PYTHON) cmake/wasm.py

# Removes what was built, and the environments.
clean:
	rm -rf build dist .venv .venv-*
