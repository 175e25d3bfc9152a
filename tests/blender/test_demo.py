"""What ``make demo`` runs, whole, on a tiny prior."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_demo_leaves_pictures_videos_files_and_figures(tmp_path):
    pytest.importorskip("torch", reason="this Python has no engine to demonstrate")
    from support.tiny_prior import write_tiny_prior

    prior, out = write_tiny_prior(tmp_path / "prior"), tmp_path / "demo"
    options = ["--prior", str(prior), "--steps", "2", "--size", "64", "--out", str(out)]
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((out / "report.json").read_text())
    assert report["seconds"]["total"] > 0
    assert report["figures"]["splats"] > 1000
    assert report["blender"]["frames"] == 72
    for name in ("smile.ply", "blender/demo.blend", "blender/animation.mp4", "blender/splats_0001.ply"):
        assert (out / name).stat().st_size > 1000, name
    assert sum(path.suffix == ".mp4" for path in (out / "pictures").iterdir()) == 2
    assert str(out / "report.json") in done.stdout
