# Each target works in an empty clone; `make install` is the part they share. See scripts/install.sh for its settings.
.PHONY: install quickstart test slow interop bench-peers lint clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt scripts/install.sh
	bash scripts/install.sh
	touch $@

quickstart: install  ## collect, train and evaluate one task: make quickstart ARGS="task=drawer-open"
	.venv/bin/foreact quickstart $(ARGS)

# Bytecode is kept, whatever the environment says: without it every process that a test starts compiles torch anew.
test slow: export PYTHONDONTWRITEBYTECODE =

test: install  ## the fast suite; pyproject.toml leaves out tests marked slow or gpu
	.venv/bin/pytest -n auto --dist loadfile $(ARGS)

slow: install
	.venv/bin/pytest -m slow $(ARGS)

interop: install  ## lerobot's robots and openpi's client, each in an environment of its own (1 GB), against foreact
	bash scripts/peers.sh
	.venv/bin/pytest -m slow tests/eval/robot/test_lerobot_interop.py tests/eval/serving/test_openpi.py $(ARGS)

bench-peers: install  ## lerobot beside foreact: its own environment (1 GB), then the benches that take it; half an hour, eval with CHECKPOINT=RUN
	bash scripts/peers.sh
	for bench in loader train act $(and $(CHECKPOINT),eval); do .venv/bin/foreact bench $$bench device=cpu \
	  $(and $(CHECKPOINT),checkpoint=$(CHECKPOINT)) lerobot=.venv-lerobot/bin/python $(ARGS) || exit 1; done

lint: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright

clean:  ## all that was installed or built; runs/ stays
	rm -rf .venv .venv-3.12 .venv-lerobot .venv-openpi build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
