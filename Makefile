# What a newcomer types. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: run test bench help

# More words for `akis dev` and `akis-bench`: make run ARGS="--venues sim", make bench ARGS="fan-out latency"
ARGS ?=

run: ## build what is needed and start everything on http://127.0.0.1:8080
	@echo "Building akis. The first build compiles some 250 crates, which takes minutes; later ones take seconds."
	@echo "When it is done, two lines follow: the address of the page, and a token."
	@cargo run --locked -- dev $(ARGS)

test: ## install what tests need, then run every check
	@scripts/test.sh

bench: ## measure a gateway and the whole path to it: two minutes, after a release build of several
	@cargo build --locked --release -p akis -p akis-loadtest
	@ulimit -n "$$(ulimit -Hn)" && target/release/akis-bench $(ARGS)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
