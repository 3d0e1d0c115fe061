# `make` alone lists the targets. Every target first completes .venv with what it needs.
#
# Values may hold spaces and quotes:  make build-instruct IMAGES="my photos" SOURCE=mine

.DEFAULT_GOAL := help
.PHONY: help setup build-instruct annotate dashboard train worker up down bench bench-full test test-all check

RUN := .venv/bin/python
SETUP := sh scripts/setup.sh

# Too common a name to be taken from the environment.
ifneq ($(origin OUT),command line)
OUT :=
endif

# Worker processes of the tests. Two are enough for this suite and gentle on memory.
JOBS ?= 2

# Docker Compose, or a message when it is not there.
COMPOSE := docker compose version >/dev/null 2>&1 || { \
	echo "Docker Compose is not there: install it, or start the servers of compose.yaml yourself"; \
	exit 2; }; docker compose

# A value as one word of the shell, whatever it holds; an option only when its variable has a value.
quote = '$(subst ','\'',$(value $(1)))'
option = $(if $(value $(1)),$(2) $(call quote,$(1)))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

setup: ## make .venv with the base install; EXTRAS="train dev" and TORCH_BACKEND=cpu|cu130|... add to it
	@$(SETUP) $(EXTRAS)

build-instruct: ## the main job: images in, FakeInstruct shards out (IMAGES SOURCE LABEL GENERATOR LICENCE NORMALISE=1 MIN_REVIEW BUDGET RECIPE OUT)
	@$(SETUP)
	@$(RUN) -m main_job \
		$(call option,IMAGES,--images) $(call option,SOURCE,--source) \
		$(call option,LABEL,--label) $(call option,GENERATOR,--generator) \
		$(call option,LICENCE,--licence) $(if $(value NORMALISE),--normalise) \
		$(call option,MIN_REVIEW,--min-review) \
		$(call option,BUDGET,--budget) $(call option,RECIPE,--recipe) $(call option,OUT,--out)

annotate: ## experts check drafts in Label Studio on this machine, until Ctrl-C (SOURCE LIMIT PORT RECIPE; BLIND=separate EXPERTS: a server for each blind expert)
	@$(SETUP)
	@$(RUN) -m annotation serve \
		$(call option,SOURCE,--source) $(call option,LIMIT,--limit) \
		$(call option,PORT,--port) $(call option,RECIPE,--recipe) \
		$(call option,BLIND,--blind) $(call option,EXPERTS,--experts)

dashboard: ## what is good, what is stuck: the QA dashboard in a browser on this machine (PORT)
	@$(SETUP) dashboard
	@$(RUN) -m dashboard $(call option,PORT,--port)

train: ## train and validate the small model on the shards of `make build-instruct` (OUT)
	@$(SETUP) train
	@$(RUN) -m training.run recipes/fakescope/training/tiny.yaml \
		--shards "$${FAKESCOPE_HOME:-data}/fakeinstruct" --images "$${FAKESCOPE_HOME:-data}/images" \
		--out $(if $(value OUT),$(call quote,OUT),"$${FAKESCOPE_HOME:-data}/runs/tiny")

worker: ## a Celery worker for the broker named by CELERY_BROKER_URL (QUEUES: only these teachers)
	@$(SETUP)
	@$(RUN) -m workers $(call option,QUEUES,--queues)

up: ## start PostgreSQL, Redis and RabbitMQ in containers, for this machine alone (compose.yaml)
	@$(COMPOSE) up --detach --wait

down: ## stop the servers of `make up`; their data stays
	@$(COMPOSE) down

bench: ## measure each part beside its peers, and how well the small model learns (hours)
	@$(SETUP) train dev dashboard
	@$(RUN) -m benchmarks.main_job
	@$(RUN) -m benchmarks.ingest
	@$(RUN) -m benchmarks.neighbours
	@$(RUN) -m benchmarks.drafting
	@$(RUN) -m benchmarks.label_studio_push
	@$(RUN) -m benchmarks.build_instruct
	@$(RUN) -m benchmarks.dashboard
	@$(RUN) -m benchmarks.evaluate
	@$(RUN) -m benchmarks.train_tree
	@$(RUN) -m benchmarks.demo_learning

bench-full: ## build 2,000,000 rows from 50,000 drawn chains, verify them, and read them through with `datasets`
	@$(SETUP) train dev dashboard
	@$(RUN) -m benchmarks.full_build

test: ## the tests; what this machine cannot run is skipped with the reason (JOBS=2)
	@$(SETUP) train dev dashboard
	@$(RUN) -m pytest tests -n $(JOBS) --dist worksteal --durations 25 -m "not full"

test-all: ## all tests, those at full size too
	@$(SETUP) train dev dashboard
	@$(RUN) -m pytest tests -n $(JOBS) --dist worksteal --durations 50

check: ## style, types and the directions of imports
	@$(SETUP) train dev dashboard
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(RUN) -m mypy scripts benchmarks
	@.venv/bin/lint-imports --no-logo
