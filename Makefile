# What a person types. Rust (rustup) is expected to be there; everything else is installed when it is missing
# (Debian packages with apt, sudo only when not root). Nothing here reads standard input.
#
#   make demo         a backup and a restore from beginning to end, with nothing else running
#   make build        the optimised binary: target/release/kafka-backup
#   make test         every test, against a real Kafka and a real S3 that are started for it and stopped after it
#   make lint         formatting, clippy, licences and sources of the dependencies
#   make bench        the benchmarks
#   make packages     .deb and .rpm for every distribution with glibc 2.28 or newer: target/packages
#                     (PACKAGE_ARCH=aarch64 for the other architecture)
#   make stack        a Kafka and an S3 that stay, for trying things; make stack-down stops them
#   make clean-stack  stops them and forgets what was downloaded for them

SHELL := /bin/bash
CARGO ?= cargo
STACK := tests/stack/stack.sh
BUILD_PACKAGES := build-essential perl pkg-config
TEST_PACKAGES := openjdk-17-jre-headless maven ceph-mon ceph-osd ceph-common radosgw curl util-linux \
	debootstrap systemd-container rpm
LINT_PACKAGES := lintian rpmlint python3-venv

TOOLS := target/tools
# Compiled as they are used: once, so little is worth optimising; what hashes packages is worth it.
TOOL_CONFIG := $(foreach crate,sha2 sha1 md-5 sha3 keccak block-buffer digest rpm,--config 'profile.dev.package.$(crate).opt-level=2') \
	--config 'profile.dev.debug=0'
PACKAGE_ARCH ?= x86_64
PACKAGE_TARGET := $(PACKAGE_ARCH)-unknown-linux-gnu
DEB_ARCH = $(subst x86_64,amd64,$(subst aarch64,arm64,$(PACKAGE_ARCH)))
# EL 8, Debian 10, Ubuntu 20.04 and everything newer.
GLIBC_FLOOR := 2.28

.DEFAULT_GOAL := help
.PHONY: help demo build test lint fmt clippy deny bench stack stack-down clean-stack build-deps test-deps \
	packages package-tools

help:
	@sed -n 's/^#   //p' Makefile

# Not the optimised build: that takes several times as long to be there.
demo: build-deps
	$(CARGO) build --quiet --locked
	$(CARGO) run --quiet --locked -- demo

build: build-deps
	$(CARGO) build --release --locked

# The brokers and the gateway are shared by all test binaries; each test uses topics and buckets of its own.
# The packages that are tested hold the binary that was built for the tests, made into packages by the same tools from the
# same description: an optimised build for every change would cost more than all the tests.
test: test-deps package-tools
	$(STACK) with $(CARGO) test --locked

lint: fmt clippy deny

fmt:
	$(CARGO) fmt --check

clippy: build-deps
	$(CARGO) clippy --locked --all-targets -- -D warnings

# `advisories` is left to a scheduled run: it asks a database that changes without us.
deny: build-deps
	@[ -x $(TOOLS)/bin/cargo-deny ] || $(CARGO) install --quiet --locked --debug --no-default-features \
	  --config 'profile.dev.debug=0' --root $(TOOLS) cargo-deny
	$(TOOLS)/bin/cargo-deny check bans licenses sources

bench: test-deps
	$(STACK) with $(CARGO) bench --locked

# Every file but the binary is made by a binary that runs here: the one that is packaged, or for another architecture
# the one of this machine.
packages: build-deps package-tools
	@scripts/debian-deps.sh $(LINT_PACKAGES)
	[ -x target/venv/bin/cargo-zigbuild ] || \
	  { python3 -m venv target/venv && target/venv/bin/pip install --quiet ziglang cargo-zigbuild; }
	rustup target add $(PACKAGE_TARGET)
	PATH="$(CURDIR)/target/venv/bin:$$PATH" CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_PROFILE_RELEASE_DEBUG=0 \
	  KAFKA_BACKUP_REVISION="$$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" \
	  HOST_CC=cc HOST_CXX=c++ CC="$(CURDIR)/packaging/zigcc" CXX="$(CURDIR)/packaging/zigc++" \
	  ZIG_PYTHON="$(CURDIR)/target/venv/bin/python3" ZIG_TARGET=$(PACKAGE_ARCH)-linux-gnu.$(GLIBC_FLOOR) \
	  $(CARGO) zigbuild --release --locked --target $(PACKAGE_TARGET).$(GLIBC_FLOOR)
	packaging/check-glibc.sh target/$(PACKAGE_TARGET)/release/kafka-backup $(GLIBC_FLOOR)
	if [ "$(PACKAGE_ARCH)" = "$$(uname -m)" ]; then binary=target/$(PACKAGE_TARGET)/release/kafka-backup; \
	  else $(CARGO) build --quiet --locked; binary=target/debug/kafka-backup; fi; \
	  packaging/stage.sh "$$binary" target/package
	mkdir -p target/packages
	$(TOOLS)/bin/cargo-deb deb --no-build --no-strip --locked --target $(PACKAGE_TARGET) --output target/packages
	$(TOOLS)/bin/cargo-generate-rpm generate-rpm --target $(PACKAGE_TARGET) --output target/packages
	packaging/lint.sh target/packages/*$(DEB_ARCH)*.deb target/packages/*$(PACKAGE_ARCH)*.rpm

package-tools: build-deps
	@for tool in cargo-deb cargo-generate-rpm; do [ -x $(TOOLS)/bin/$$tool ] || \
	  $(CARGO) install --quiet --locked --debug $(TOOL_CONFIG) --root $(TOOLS) $$tool; done
	@scripts/promtool.sh $(TOOLS)/bin/promtool

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
