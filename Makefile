# The front door. Every target only calls cargo, xtask or a short script.
.DEFAULT_GOAL := help
SHELL := /bin/sh
RUN := set -eu; eval "$$(sh scripts/toolchain.sh)";

.PHONY: help
help: ## What can be done here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup-demo build ## Show the main job on real traffic (ARGS=--keep leaves it running)
	@$(RUN) target/debug/sluice demo $(ARGS)

.PHONY: test
test: setup-test ## Install what is missing and run all tests
	@$(RUN) exec "$$CARGO" run -q -p xtask -- ci

.PHONY: bench
bench: setup-bench ebpf ## Measure against named peers; results in target/bench/*.json
	@$(RUN) exec "$$CARGO" run -q -p xtask -- bench $(ARGS)

.PHONY: fuzz
fuzz: setup-fuzz ## Look for inputs that break the proxies' readers; ARGS="SECONDS TARGET"
	@$(RUN) exec "$$CARGO" run -q -p xtask -- fuzz $(ARGS)

.PHONY: build
build: ebpf ## Build everything (debug profile)
	@$(RUN) "$$CARGO" build

.PHONY: release
release: setup ebpf ## Build release binaries; the CNI plugin is static
	@$(RUN) "$$CARGO" build --release && "$$CARGO" rustc --release -p sluice-cni --bin sluice-cni -- -C target-feature=+crt-static

.PHONY: ebpf
ebpf: ## Build the kernel programs
	@$(RUN) "$$CARGO" run -q -p xtask -- ebpf

.PHONY: lint
lint: setup-test ebpf ## Formatting, lints, structure
	@$(RUN) exec "$$CARGO" run -q -p xtask -- lint

.PHONY: conformance
conformance: setup-test build ## Black-box cases on real namespaces (ARGS filters by name)
	@$(RUN) exec "$$CARGO" test -p sluice-conformance -- $(ARGS)

.PHONY: setup
setup: ## Install what building needs
	@sh scripts/setup.sh build

.PHONY: setup-demo setup-test setup-bench setup-fuzz
setup-demo setup-test setup-bench setup-fuzz:
	@sh scripts/setup.sh $(@:setup-%=%)

.PHONY: toolchain
toolchain: ## Say which compilers are used
	@sh scripts/toolchain.sh --check

.PHONY: clean
clean: ## Remove build results
	rm -rf target
