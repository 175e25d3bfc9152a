"""What ``make gpu-wheels`` and ``make gpu-check`` do without a GPU: their checks, and the benchmarks at toy size."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from headstudio.errors import UserError
from headstudio.guidance.prior import Prior
from headstudio.rasterise import cuda
from support.tiny_prior import write_tiny_prior

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import gpu_check  # noqa: E402
import gpu_wheels  # noqa: E402


@pytest.mark.slow
def test_dry_run(tmp_path):
    """The whole check at toy size, in processes of its own as on the other machine."""
    command = [sys.executable, "tools/gpu_check.py", "--part", "dry", "--wheels", str(tmp_path), "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "machine.json").read_text())["missing"] == {}
    training = json.loads((tmp_path / "dry-training.json").read_text())
    assert training["steps_per_second"] > 0
    assert training["rows_per_step"]["unet"] >= 2 * training["views"]
    parts = training["parts"]
    wanted = {"head", "frames and Eq. 5", "render", "render, backward", "autoencoder", "autoencoder, backward"}
    wanted |= {"unet", "regularisation", "Eq. 5 and head, backward", "density", "finite?", "Adam", "landmark map"}
    assert wanted <= parts.keys(), wanted - parts.keys()
    assert all(part["ms"] > 0 for part in parts.values())
    # The parts are most of the step, and no network is faster than its arithmetic
    assert 0.5 < training["share_in_parts"] <= 1.0
    for network in ("unet", "autoencoder", "autoencoder, backward"):
        assert 0 < parts[network]["floor_ms"] < 2 * parts[network]["ms"], network
    playback = json.loads((tmp_path / "dry-playback.json").read_text())
    assert min(playback["frames_per_second"].values()) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_check_says_so_and_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "install", lambda wheels: None)
    monkeypatch.setattr(gpu_check, "NEEDED", ("torch",))
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--part", "parity", "--out", str(tmp_path)])
    assert gpu_check.main() == gpu_check.NO_GPU
    assert "no CUDA device" in capsys.readouterr().out


def test_without_wheels_the_check_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--wheels", str(tmp_path), "--out", str(tmp_path / "out")])
    assert gpu_check.main() == 1
    assert "make gpu-wheels" in capsys.readouterr().err


def write_wheel(folder: Path, name: str) -> None:
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "__version__ = '1.0'\n")
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")


def test_wheels_are_installed_in_front_of_the_machines_packages(tmp_path, monkeypatch):
    """Offline, twice (the second call has nothing to do), and with the engine under its import name."""
    wheels, work = tmp_path / "wheels", tmp_path / "work"
    wheels.mkdir()
    write_wheel(wheels, "plyfile")  # this machine has another version
    (wheels / "default-head-0.npz").write_bytes(b"head")
    monkeypatch.setattr(gpu_check, "WORK", work)
    site = gpu_check.install(wheels)
    assert gpu_check.install(wheels) == site
    assert (work / "cache" / "headstudio" / "default-head-0.npz").read_bytes() == b"head"
    variables = gpu_check.environment(site)
    assert variables["HF_HUB_OFFLINE"] == "1"
    code = "import headstudio, plyfile; print(plyfile.__file__); print(headstudio.__file__)"
    lines = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True).stdout.split(
        "\n"
    )
    assert lines[0].startswith(str(site))
    assert lines[1].startswith(str(site / "headstudio"))


@pytest.mark.parametrize(("name", "size", "message"), [("torch", 0, "must not be carried"), ("big", 1, "more than")])
def test_what_is_carried_is_checked(tmp_path, monkeypatch, name, size, message):
    for package in gpu_wheels.PACKAGES:
        write_wheel(tmp_path, package)
    assert gpu_wheels.check(tmp_path) > 0
    monkeypatch.setattr(gpu_wheels, "LIMIT_MIB", 0.1)
    (tmp_path / f"{name}-2.0.whl").write_bytes(bytes(size * 2**20))
    with pytest.raises(SystemExit, match=message):
        gpu_wheels.check(tmp_path)


def test_a_missing_wheel_is_named(tmp_path):
    with pytest.raises(SystemExit, match="no wheel of diffusers"):
        gpu_wheels.check(tmp_path)


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (
            "Error building extension 'gsplat_cuda': [1/2] nvcc -c a.cu\na.cu(3): error: no cub\nninja: stopped",
            "no cub",
        ),
        ("CUDA_HOME is not set", "CUDA_HOME is not set"),
        ("", "RuntimeError"),
    ],
)
def test_a_failed_build_names_its_error(output, line):
    assert line in cuda._telling_line(RuntimeError(output))


def test_an_unknown_compile_backend_is_refused(tmp_path):
    with pytest.raises(UserError, match="inductor"):
        Prior.load(write_tiny_prior(tmp_path), device="cpu", compile_backend="nonsense")
