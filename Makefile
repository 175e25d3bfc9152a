.PHONY: demo test types benchmark gpu-wheels gpu-check setup setup-tests
PYTHON_VENV = .venv/bin/python
SECOND_BLENDER = .venv-blender52/bin/python

# Prompt to avatar to pictures, video and PLY, on the CPU, with the built-in prior. Results under out/demo.
demo: setup
	$(PYTHON_VENV) tools/demo.py

# Style and types, then every test; Blender's in processes of their own, as in life, on each Blender that is here: the
# bpy modules, and inside the executable that BLENDER names.
test: setup-tests types
	$(PYTHON_VENV) -m ruff check .
	$(PYTHON_VENV) -m ruff format --check .
	$(PYTHON_VENV) -m pytest tests --ignore tests/blender $(ARGS)
	$(PYTHON_VENV) -m pytest tests/blender
	@if [ -x $(SECOND_BLENDER) ]; then set -x; $(SECOND_BLENDER) -m pytest tests/blender; else \
	  echo "Blender's half was tested on one Blender alone: there is no .venv-blender52 (tools/setup.sh tests says why)."; fi
	@if [ -n "$$BLENDER" ]; then set -x; $(PYTHON_VENV) tools/test_in_blender.py; else \
	  echo "Blender's half was tested in modules alone: BLENDER names no Blender executable."; fi
	@echo "make test: all passed."

# Blender's half against Blender's API. mypy wants a package, whatever the checkout's folder is called.
types: setup-tests
	@mkdir -p .venv-types/tree && ln -sfn ../.. .venv-types/tree/headstudio
	cd .venv-types/tree && ../bin/python -m mypy --config-file ../../pyproject.toml -p headstudio.blender_addon

# Every measurement that benchmarks/results holds.
benchmark: setup
	$(PYTHON_VENV) -m benchmarks

# What a CUDA machine without a network lacks, into out/gpu-wheels (see docs/gpu.md).
gpu-wheels: setup
	$(PYTHON_VENV) tools/gpu_wheels.py --python-version $(or $(PYTHON_VERSION),3.12)

# On that machine, with its own Python: PART=build, parity, training, playback, all, or dry (on the CPU, toy size).
gpu-check:
	$(or $(PYTHON),python3) tools/gpu_check.py --part $(or $(PART),parity)

setup:
	@tools/setup.sh

setup-tests:
	@tools/setup.sh tests
