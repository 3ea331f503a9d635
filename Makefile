# What a person types. Rust (rustup) is expected to be there; everything else is installed when it is missing
# (Debian packages with apt, sudo only when not root). Nothing here reads standard input.
#
#   make demo         a backup and a restore from beginning to end, with nothing else running
#   make build        the optimised binary: target/release/kafka-backup
#   make test         every test, against a real Kafka and a real S3 that are started for it and stopped after it
#   make lint         formatting, clippy, licences and sources of the dependencies
#   make bench        the benchmarks
#   make stack        a Kafka and an S3 that stay, for trying things; make stack-down stops them
#   make clean-stack  stops them and forgets what was downloaded for them

SHELL := /bin/bash
CARGO ?= cargo
STACK := tests/stack/stack.sh
BUILD_PACKAGES := build-essential perl pkg-config
TEST_PACKAGES := openjdk-17-jre-headless maven ceph-mon ceph-osd ceph-common radosgw curl util-linux

.DEFAULT_GOAL := help
.PHONY: help demo build test lint fmt clippy deny bench stack stack-down clean-stack build-deps test-deps

help:
	@sed -n 's/^#   //p' Makefile

# Not the optimised build: that takes several times as long to be there.
demo: build-deps
	$(CARGO) build --quiet --locked
	$(CARGO) run --quiet --locked -- demo

build: build-deps
	$(CARGO) build --release --locked

# The brokers and the gateway are shared by all test binaries; each test uses topics and buckets of its own.
test: test-deps
	$(STACK) with $(CARGO) test --locked

lint: fmt clippy deny

fmt:
	$(CARGO) fmt --check

clippy: build-deps
	$(CARGO) clippy --locked --all-targets -- -D warnings

# `advisories` is left to a scheduled run: it asks a database that changes without us.
deny: build-deps
	@command -v cargo-deny >/dev/null || $(CARGO) install --quiet --locked cargo-deny
	$(CARGO) deny check bans licenses sources

bench: test-deps
	$(STACK) with $(CARGO) bench --locked

stack: test-deps
	@$(STACK) up

stack-down:
	@$(STACK) down

clean-stack: stack-down
	rm -rf target/stack

build-deps:
	@scripts/debian-deps.sh $(BUILD_PACKAGES)

test-deps: build-deps
	@scripts/debian-deps.sh $(TEST_PACKAGES)
