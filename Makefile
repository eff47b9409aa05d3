# Every command of the project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The newest supported Python on the path, unless PYTHON names another.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
# Not the configuration of this folder or of one above, where others may be able to write (core/late_packages.py).
UV_CONFIG := $(firstword $(wildcard $(or $(XDG_CONFIG_HOME),$(HOME)/.config)/uv/uv.toml /etc/uv/uv.toml))
UV := $(BIN)/uv $(if $(UV_CONFIG),--config-file $(UV_CONFIG),--no-config) pip
# For every platform, and for every Python from the oldest that the project supports.
COMPILE = $(UV) compile -q --universal --python-version 3.11 --no-header --override requirements/overrides.txt
# Every command of scripts/, from any folder: `sentiment --help` lists them.
SENTIMENT := $(BIN)/sentiment
# Where there is no npm this is never made, and the dashboard does without charts.
ASSETS := web/dashboard/static/vendor/.done
LOCKS := requirements/serve.lock requirements/encoder.lock
# On Linux on x86; `make prove-start` measures it.
DOWNLOAD_MB := 320
# An index with CPU builds of torch, where neither pip's own nor pytorch.org can be had (CONTRIBUTING.md).
TORCH_INDEX ?=
ROUNDS ?= 3
USERS ?= 100
# Not ?=: the shell has a variable of that name.
SECONDS = 60
# Processes that run tests. Tests that wait leave room for two more on two cores.
WORKERS ?= 4
# After a crash, a worker that replaces the crashed one would never get a test, and the run not end.
PARALLEL = -n $(WORKERS) --max-worker-restart=0
LOOP ?= closed
SHAPE ?= constant
export BENTOML_DO_NOT_TRACK := true
# Other users of the machine can hold its locks, where they can read them.
export UV_LOCK_TIMEOUT ?= 60
# With it each of a service's processes compiles the same modules again at every start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

.PHONY: serve
serve: $(SENTIMENT) $(ASSETS) ## Install, save the models, start the databases, and serve on PORT (3000)
	@exec $(SENTIMENT) serve

.PHONY: demo
demo: $(SENTIMENT) $(ASSETS) ## Serve a fortnight of invented traffic, in databases of its own (DEMO=--remove deletes it)
	@exec $(SENTIMENT) demo $(DEMO)

.PHONY: models
models: $(SENTIMENT) ## Save both starter versions into the BentoML model store
	@$(SENTIMENT) save-models $(if $(ENGINES),--engines $(ENGINES))

.PHONY: migrate
migrate: $(SENTIMENT) ## Bring the database of DATABASE_URL to the newest schema
	@$(SENTIMENT) migrate

.PHONY: check
check: $(VENV)/.dev ## Formatting, lint, types, import rules, known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -n auto
	$(BIN)/lint-imports
	$(BIN)/zizmor -q --offline --min-severity medium .github
	$(SENTIMENT) audit

.PHONY: unit
unit: $(VENV)/.dev ## The unit tests alone
	$(BIN)/pytest tests/unit -q -p no:cacheprovider $(PARALLEL)

.PHONY: test
test: $(VENV)/.dev $(ASSETS) ## The whole suite, against a real PostgreSQL, Redis and bentoml serve
	$(BIN)/pytest $(PARALLEL) --durations=20

# Apart from `test`, whose unit and integration tests it would make slower by a third.
.PHONY: coverage
coverage: $(VENV)/.dev ## How much of the code the unit and integration tests run; fails below 70 %
	$(BIN)/pytest $(PARALLEL) -q tests/unit tests/integration \
		--cov --cov-report=term:skip-covered --cov-fail-under=70

.PHONY: format
format: $(VENV)/.dev ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: settings
settings: $(SENTIMENT) ## Write every setting into .env.example and docs/settings.md
	@$(SENTIMENT) settings-reference

.PHONY: transcript
transcript: $(SENTIMENT) ## Play a session on what `make serve` serves and write it into the README
	@$(SENTIMENT) transcript

.PHONY: loadtest
loadtest: $(VENV)/.dev ## USERS (100) for SECONDS (60) on what `make serve` serves, or on HOST; fails if a reply is wrong
	@$(SENTIMENT) loadtest --users $(USERS) --seconds $(SECONDS) --loop $(LOOP) --shape $(SHAPE) \
		$(if $(findstring command,$(origin HOST)),--host "$(HOST)") $(if $(RECORD),--record)

.PHONY: loadtest-baseline
loadtest-baseline: $(VENV)/.dev ## The same load on ours and on a plain FastAPI baseline; fails if ours is not clearly faster
	@$(SENTIMENT) loadtest-baseline --users $(USERS)

.PHONY: bench-engines
bench-engines: $(VENV)/.dev ## Texts/s of each engine of the served models, and the one that a runner chooses, half a minute
	@$(BIN)/python -m loadtest.bench.engines

.PHONY: bench
bench: $(VENV)/.bench ## Engines, service, cost and start beside their peers, half an hour (BENCH=--quick: two minutes)
	@$(SENTIMENT) bench $(BENCH)

.PHONY: alerts
alerts: $(VENV)/.dev ## Check the alert rules, their tests, and the configuration of Prometheus and Alertmanager
	@$(SENTIMENT) alerts

.PHONY: assets
assets: $(ASSETS) ## Fetch the chart library of the dashboard, with npm

$(ASSETS): web/dashboard/package-lock.json | $(SENTIMENT)
	@$(SENTIMENT) vendor-assets

.PHONY: dashboards
dashboards: $(VENV)/.dev ## Write the Grafana dashboards
	@$(SENTIMENT) dashboards

.PHONY: faults
faults: $(VENV)/.dev ## Kill, stop, starve and cut everything under traffic, ROUNDS times (3), then prove-faults
	@for round in $$(seq $(ROUNDS)); do \
		$(BIN)/pytest -q -rP -p no:cacheprovider --thorough tests/served/test_faults.py \
			tests/served/test_failing_databases.py tests/served/rollout/test_changes.py || exit 1; \
	done
	@$(SENTIMENT) prove faults

.PHONY: prove-alerts
prove-alerts: $(VENV)/.dev ## Prove with a real fault for each alert, and a real Prometheus, that it fires

.PHONY: prove-dashboard
prove-dashboard: $(VENV)/.dev $(ASSETS) ## Prove the dashboard in a real Chromium

.PHONY: prove-faults
prove-faults: $(VENV)/.dev ## Prove with attacks of minutes that nothing outlives its end, and that no load looks like a fault

.PHONY: prove-image
prove-image: $(VENV)/.dev $(ASSETS) ## Prove that the image builds, starts, answers and stops

.PHONY: prove-start
prove-start: $(VENV)/.dev ## Prove that the first command of the README works where torch cannot be had

.PHONY: prove-cluster
# CLUSTER_PROGRAMS: folders, with colons between, of etcd, kube-apiserver, kube-controller-manager, kube-scheduler and
# kubectl. CLUSTER_CRDS: a folder with the definitions of others' kinds. CONTRIBUTING.md says where they come from.
prove-cluster: export CLUSTER_PROGRAMS := $(CLUSTER_PROGRAMS)
prove-cluster: export CLUSTER_CRDS := $(CLUSTER_CRDS)
prove-cluster: $(VENV)/.cluster ## Prove on a real kube-apiserver (CLUSTER_PROGRAMS, CLUSTER_CRDS) what the Helm chart promises

.PHONY: prove-compose
prove-compose: $(VENV)/.dev ## Prove with a real dockerd that all of docker-compose.yml starts and keeps data

.PHONY: prove-railway
prove-railway: $(VENV)/.dev ## Prove that the image runs with what Railway gives it, replayed with docker

.PHONY: prove-nginx
prove-nginx: $(VENV)/.dev ## Prove that limits count the clients of a real nginx, set up as documented

.PHONY: prove-pooler
prove-pooler: $(VENV)/.dev ## Prove that the service works behind PgBouncer in transaction mode

.PHONY: prove-topology
prove-topology: $(VENV)/.dev ## Prove, as root, on nodes that are network namespaces, what lost links and nodes do under load

.PHONY: prove-upgrade
prove-upgrade: $(VENV)/.dev ## Prove that builds replace each other, and machines are lost, without a failed request

.PHONY: prove-checkpoints
prove-checkpoints: $(VENV)/.dev ## Prove that saved checkpoints open in transformers 4

.PHONY: prove-clients
prove-clients: $(VENV)/.dev ## Prove that the clients of KServe, MLServer, MLflow and SageMaker understand the service

.PHONY: prove-scoring
prove-scoring: $(VENV)/.dev ## Prove that files of any size take no more memory, and that a Ray cluster loses no row

.PHONY: prove-sinks
prove-sinks: $(VENV)/.dev ## Prove that emulators of S3 and GCS and the SDK of CloudEvents get what the sinks hand on

.PHONY: prove-tutorials
prove-tutorials: $(VENV)/.cluster ## Prove that the commands of docs/tutorials/ print what the pages show

.PHONY: prove-arm64
prove-arm64: $(VENV)/.dev $(ASSETS) ## Prove that the image for arm64 answers right, emulated; half an hour

# The latest result of each is in docs/proofs.md.
prove-alerts prove-dashboard prove-faults prove-image prove-start prove-cluster prove-compose prove-railway prove-nginx prove-pooler prove-topology prove-upgrade prove-checkpoints prove-arm64 prove-clients prove-scoring prove-sinks prove-tutorials:
	@$(SENTIMENT) prove $(@:prove-%=%)

.PHONY: fuzz
fuzz: $(VENV)/.dev ## 100,000 requests that the OpenAPI document allows, and does not; an hour
	@$(SENTIMENT) fuzz

.PHONY: soak
soak: $(VENV)/.dev ## Half an hour of everything; fails if memory, files or connections grow
	@$(SENTIMENT) soak

# CONTAINER_ENGINE: docker, podman or buildah; else the first that works.
ENGINE_OPTION = $(if $(CONTAINER_ENGINE),--engine $(CONTAINER_ENGINE))

.PHONY: image
image: $(SENTIMENT) $(ASSETS) ## Build the Bento and its image, with Docker, podman or buildah
	@$(SENTIMENT) image build $(if $(BASE_IMAGE),--base-image $(BASE_IMAGE)) $(ENGINE_OPTION)

.PHONY: image-sbom
image-sbom: $(VENV)/.dev ## Write what the image holds into build/sbom.json (CycloneDX)
	@$(SENTIMENT) image sbom $(ENGINE_OPTION)

.PHONY: image-check
image-check: $(SENTIMENT) ## Start the image, query it, inspect it and stop it
	@$(SENTIMENT) image check $(ENGINE_OPTION)

.PHONY: build
build: $(SENTIMENT) $(ASSETS) ## Build the Bento
	$(BIN)/bentoml build

.PHONY: lock
lock: $(SENTIMENT) ## Pin the newest versions of everything
	$(COMPILE) --generate-hashes --upgrade requirements/serve.in -o requirements/serve.lock
	$(COMPILE) --no-annotate -c requirements/serve.lock requirements/image.in -o requirements/image.lock
	$(COMPILE) --generate-hashes --no-deps requirements/encoder.in -o requirements/encoder.lock
	$(COMPILE) --generate-hashes --upgrade requirements/torch.in -o requirements/torch.lock
	$(COMPILE) --generate-hashes --upgrade requirements/score.in -o requirements/score.lock
	$(COMPILE) --generate-hashes --upgrade requirements/dev.in -o requirements/dev.lock
	$(COMPILE) --generate-hashes --upgrade requirements/bench.in -o requirements/bench.lock
	$(COMPILE) --generate-hashes --upgrade requirements/cluster.in -o requirements/cluster.lock
	for peer in infinity mlserver; do $(UV) compile -q --universal --python-version 3.11 --no-header \
		--override requirements/peers/overrides.txt --generate-hashes --upgrade \
		requirements/peers/$$peer.in -o requirements/peers/$$peer.lock || exit 1; done

$(VENV)/.venv:
	@python=$$(sh scripts/newest_python.sh $(PYTHON)) && echo "making $(VENV) with $$python" && $$python -m venv $(VENV)
	@touch $@

$(VENV)/.serve: $(VENV)/.venv requirements/uv.txt $(LOCKS)
	@echo "installing what is in $(LOCKS), $(DOWNLOAD_MB) MB to download"
	@$(BIN)/pip install --disable-pip-version-check --no-cache-dir -q -r requirements/uv.txt
	@$(UV) install --python $(BIN)/python --no-deps --require-hashes $(LOCKS:%=-r %)
	@touch $@

# The packages stay where they are; uv has the build backend that pyproject.toml names in itself.
$(SENTIMENT): $(VENV)/.serve pyproject.toml
	@$(UV) install -q --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(SENTIMENT) $(addprefix requirements/,torch.txt torch.lock score.lock dev.lock)
	@$(SENTIMENT) install-torch $(if $(TORCH_INDEX),--index $(TORCH_INDEX))
	@$(UV) install --compile-bytecode --python $(BIN)/python --no-deps --require-hashes \
		-r requirements/score.lock -r requirements/dev.lock
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.lock
	@$(UV) install --compile-bytecode --python $(BIN)/python --no-deps --require-hashes -r requirements/bench.lock
	@touch $@

$(VENV)/.cluster: $(VENV)/.dev requirements/cluster.lock
	@$(UV) install --compile-bytecode --python $(BIN)/python --no-deps --require-hashes -r requirements/cluster.lock
	@touch $@
