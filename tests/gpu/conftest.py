"""Comparisons whose errors can be kept: with GPU_PARITY=FILE they are added to that JSON file as a table."""

import json
import os
from pathlib import Path

import pytest
import torch


@pytest.fixture
def cuda():
    """The device, with convolutions in full precision: by default cuDNN rounds their float32 inputs to TF32."""
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield "cuda"
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def agree(request):
    """``agree(what, value, truth, bound)``: the norm of the error over the norm of the truth is below the bound."""

    def check(what, value, truth, bound):
        value, truth = value.detach().double().cpu(), truth.detach().double().cpu()
        assert value.shape == truth.shape, (value.shape, truth.shape)
        assert truth.norm() > 0, f"{what}: nothing to compare"
        error = ((value - truth).norm() / truth.norm()).item()
        if "GPU_PARITY" in os.environ:
            path = Path(os.environ["GPU_PARITY"])
            rows = json.loads(path.read_text()) if path.exists() else []
            row = {"test": request.node.name, "what": what, "error": error, "bound": bound}
            path.write_text(json.dumps([*rows, row], indent=1))
        assert error < bound, (what, error)

    return check
