.PHONY: demo test benchmark setup
PYTHON_VENV = .venv/bin/python

# Prompt to avatar to pictures, video and PLY, on the CPU, with the built-in prior. Results under out/demo.
demo: setup
	$(PYTHON_VENV) tools/demo.py

# Style, then every test; Blender's in a process of their own, as in life.
test: setup
	$(PYTHON_VENV) -m ruff check .
	$(PYTHON_VENV) -m ruff format --check .
	$(PYTHON_VENV) -m pytest tests --ignore tests/blender $(ARGS)
	$(PYTHON_VENV) -m pytest tests/blender

# Every measurement that benchmarks/results holds.
benchmark: setup
	$(PYTHON_VENV) -m benchmarks

setup:
	@tools/setup.sh
