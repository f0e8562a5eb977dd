# What a newcomer types. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: run test test-cluster test-compose image up down load bench soak fuzz help

# More words for `akis dev` and `akis-bench`: make run ARGS="--venues sim", make bench ARGS="fan-out trading-page"
ARGS ?=

run: ## build what is needed and start everything on http://127.0.0.1:8080
	@echo "Building akis. The first build compiles some 250 crates, which takes minutes; later ones take seconds."
	@echo "When it is done, two lines follow: the address of the page, and a token."
	@cargo run --locked -- dev $(ARGS)

test: ## install what tests need, then run every check
	@scripts/test.sh

test-compose: ## start, roll, break and end what `make up` starts, and look that nothing is lost
	@scripts/compose-try.sh

test-cluster: ## install the chart into the cluster that KUBECONFIG names, and roll, scale and break it under clients
	@scripts/test-cluster.sh

# Another name, or a binary that is there already: make image IMAGE=registry.example/akis:1 BINARY=target/release/akis
export IMAGE BINARY

image: ## build the container image from a release build, print its name and size, and try it
	@scripts/image.sh

# More of it: make up PROFILES="observe chaos"
export PROFILES

up: ## start Redis, two gateways behind HAProxy, two normalizers and the page with docker compose
	@scripts/up.sh

down: ## end what `make up` started; the log and the dashboards' data stay
	@docker compose --file deploy/compose.yaml --profile '*' down

# A load test, and its settings: make load SCENARIO=average ARGS="-e CLIENTS=200", or against a gateway of yours with URL and TOKEN.
# With WATCH=50, as many clients of akis-bench are beside those of k6, and what the two say is compared.
SCENARIO ?=
export URL TOKEN AKIS RATE WATCH BENCH CHANNELS

load: ## run a load test with k6 (SCENARIO=smoke, average, …), and leave a report under target/load
	@scripts/load.sh "$(SCENARIO)" $(ARGS)

bench: ## measure a gateway in about two minutes, after a release build of several; ARGS=--all: everything, in seven
	@scripts/bench.sh $(ARGS)

# How long, in seconds: make soak TIME=600
TIME ?= 3600

soak: ## random clients and random faults for an hour, or for TIME seconds
	@AKIS_SOAK_SECONDS=$(TIME) cargo test --locked --package akis --test it -- --ignored --nocapture soak

# Seconds for each fuzz target: make fuzz FUZZ_SECONDS=30
FUZZ_SECONDS ?= 600

fuzz: ## run every fuzz target for FUZZ_SECONDS each (nightly compiler)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz.sh

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
