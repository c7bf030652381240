# Everything from a checkout to a converted model. Each target first installs what it needs
# (tools/bootstrap); running one again skips what is done.
.DEFAULT_GOAL := help
.PHONY: help build build-all gpu test run-tests asan tsan tsan-all demo demo-quick fuzz style lint format clean bootstrap \
	install wheel deb

PREFIX ?= /usr/local
# Which files `make lint` gives to clang-tidy (tools/check-changed --help).
TIDY ?= --base HEAD

SOURCES = $(shell find halo tests -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh')

help:
	@echo 'make build       build/halo, the program (installs what it needs first)'
	@echo 'make demo        converts demo/teacher on the CPU; results in runs/demo'
	@echo 'make demo-quick  every stage of the demo in a quarter of the time; runs/demo-quick'
	@echo 'make test        unit, golden and system tests; fetches a real model (98 MB) for one of them'
	@echo 'make fuzz        every parser for 20 seconds under sanitizers (tests/fuzz/README.md)'
	@echo 'make gpu         build-gpu/halo and the libraries for run.device = "cuda"'
	@echo 'make asan        unit tests of server and engine under AddressSanitizer and UBSan'
	@echo 'make tsan        the same under ThreadSanitizer; make tsan-all  of all parts with threads,'
	@echo '                 with everything below them compiled for it too'
	@echo 'make install     the program, its libraries, manual page and completions into PREFIX'
	@echo '                 ($(PREFIX)), which then needs no checkout; DESTDIR as usual'
	@echo 'make wheel       dist/halo_hypenet-*.whl, for pip; make deb  dist/halo_*.deb, for apt'
	@echo '                 (packaging/README.md)'
	@echo 'make style       formatting and layout; make lint also clang-tidy'
	@echo 'make format      clang-format over the sources'
	@echo 'make clean       removes build folders; runs/ and .deps/ stay'

bootstrap:
	@tools/bootstrap

build: bootstrap
	@cmake --preset cpu
	@cmake --build --preset cpu --target halo

gpu:
	@tools/bootstrap --cuda
	@cmake --preset gpu
	@cmake --build --preset gpu --target halo

# Everything that the tests need, the real model of a golden test among it.
build-all:
	@tools/bootstrap --test
	@tools/fetch-smollm2
	@cmake --preset cpu
	@cmake --build --preset cpu

run-tests:
	@tools/run-tests build

test: build-all run-tests

# What the network reaches, and whose objects live as long as requests do. The other parts are as
# `make build` compiles them, which ccache knows.
SERVING_PARTS = server engine
asan: bootstrap
	@cmake --preset sanitize -DHALO_SANITIZE_PARTS="$(subst $() $(),;,$(SERVING_PARTS))"
	@cmake --build --preset sanitize --target $(SERVING_PARTS:%=%_test)
	@tools/run-tests build-sanitize '^($(subst $() $(),|,$(SERVING_PARTS)))$$'

# Address randomisation with many bits leaves no room for TSan's shadow memory: setarch -R. Some containers
# refuse it; there TSan starts itself anew without, or says what is wrong.
UNDER_TSAN = TSAN_OPTIONS="suppressions=$(CURDIR)/tests/tsan.supp" \
  $$(setarch "$$(uname -m)" -R true 2> /dev/null && echo setarch "$$(uname -m)" -R)
tsan: bootstrap
	@cmake --preset tsan -DHALO_SANITIZE_PARTS="$(subst $() $(),;,$(SERVING_PARTS))"
	@cmake --build --preset tsan --target $(SERVING_PARTS:%=%_test)
	@$(UNDER_TSAN) tools/run-tests build-tsan '^($(subst $() $(),|,$(SERVING_PARTS)))$$'

# Ranks that are processes are left out: TSan does not follow threads that start after a fork.
TSAN_PARTS = base runtime data train engine server
tsan-all: bootstrap
	@cmake --preset tsan-all
	@cmake --build --preset tsan-all --target $(TSAN_PARTS:%=%_test)
	@GTEST_FILTER="-*RankProcesses*" $(UNDER_TSAN) tools/run-tests build-tsan-all \
	  '^($(subst $() $(),|,$(TSAN_PARTS)))$$'

install: build
	@cmake --install build --prefix "$(PREFIX)"

wheel: build
	@packaging/make_wheel.py build/halo

deb: build
	@tools/bootstrap --package
	@cpack --config build/CPackConfig.cmake -B dist
	@rm -rf dist/_CPack_Packages

fuzz:
	@tools/bootstrap --fuzz
	@cmake --preset fuzz
	@cmake --build --preset fuzz
	@ctest --test-dir build-fuzz -L fuzz -j "$$(nproc)" --output-on-failure

# --resume also starts a run and leaves one alone that is done.
demo demo-quick: build
	@build/halo convert demo/$@.toml --run runs/$@ --resume

style:
	@tools/bootstrap --lint
	@clang-format --dry-run --Werror $(SOURCES)
	@tests/layers_test.py

# clang-tidy takes half a minute a file: by default those that differ from the last commit.
# build-lint is never built: clang cannot read the precompiled header that GCC leaves in build.
lint: style
	@tools/check-changed tidy $(TIDY)

format:
	@tools/bootstrap --lint
	@clang-format -i $(SOURCES)

clean:
	rm -rf build build-gpu build-lint build-sanitize build-fuzz build-tsan build-tsan-all dist
