"""The command line: what each command does with good input."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import av
import cv2
import numpy as np
import pytest
from headstudio import __version__
from headstudio.avatar.file import save_avatar
from headstudio.avatar.posing import pose_splats
from headstudio.cli import app
from headstudio.export.ply import read_ply
from headstudio.heads.skinning import rotation_matrices, skin
from headstudio.job import Job
from headstudio.train.settings import PRESETS, settings_help
from support.jobs import SMALL, small_request
from support.painted_avatar import painted_avatar
from typer.testing import CliRunner

COMMANDS = ("generate", "render", "pose", "evaluate", "info", "settings", "worker")


@pytest.fixture(scope="module")
def avatar():
    return painted_avatar({"scalp": (205, 25, 30), "pupil": (0, 0, 0)}, prompt="a man with a red hat")


@pytest.fixture
def path(avatar, tmp_path):
    save_avatar(tmp_path / "man.avatar.npz", avatar)
    return tmp_path / "man.avatar.npz"


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result.stdout


def test_help_is_quick_and_loads_nothing_heavy():
    probe = (
        "import sys, headstudio.cli\n"
        "heavy = {'numpy', 'torch', 'diffusers', 'numba', 'cv2', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)
    # The processor's own time: another process may keep this one waiting
    command = [sys.executable, "-c", "import time, headstudio.cli as c\ntry: c.app(['--help'])\n"
               "finally: print(time.process_time(), file=__import__('sys').stderr)"]  # fmt: skip
    best = min(float(subprocess.run(command, capture_output=True, text=True, check=True).stderr) for _ in range(3))
    assert best < 0.5


def test_help_names_every_command_with_an_example():
    assert all(name in run("--help") for name in COMMANDS)
    for name in COMMANDS:
        text = run(name, "--help")
        assert name == "worker" or f"headstudio {name if name != 'settings' else 'generate'}" in text
    assert run("--version") == f"headstudio {__version__}\n"


def test_settings_lists_every_setting():
    text = run("settings", "--preset", "paper")
    for name, sentence in settings_help().items():
        assert f"\n{name}=" in text
        assert sentence.split()[0] in text
    assert "steps=10000" in text
    assert all(name in text for name in PRESETS)


def test_generate_in_a_folder_named_after_the_prompt(tmp_path, monkeypatch, tiny_prior):
    monkeypatch.chdir(tmp_path)
    settings = [f"--setting={name}={value}" for name, value in SMALL.items()]
    out = run("generate", "An old man!", "--prior", tiny_prior, "--steps", 2, "--seed", 5, *settings)
    job = Job.open(tmp_path / "an-old-man")
    assert out == f"{job.avatar_path}\n"
    assert job.finished
    assert (job.request.seed, job.request.steps, job.request.prior) == (5, 2, str(tiny_prior))
    assert json.loads(run("info", "an-old-man", "--json"))["state"] == "done"
    # Where an avatar is wanted, the job's folder will do
    assert json.loads(run("evaluate", "an-old-man"))[0]["steps"] == 2


def test_generate_takes_relative_paths_and_typed_settings(tmp_path, monkeypatch, tiny_prior):
    from headstudio.commands.generate import parse_settings

    assert parse_settings(["views=2", "final_lr=0.5", "timesteps=20,600", "strategy=sds", "prune_at=0.3,"]) == {
        "views": 2,
        "final_lr": 0.5,
        "timesteps": [20, 600],
        "strategy": "sds",
        "prune_at": "0.3,",
    }


@pytest.mark.parametrize("options", [[], ["--preset", "smile=0.5", "--set", "jawOpen=0.25", "--joint", "neck=0,30,-5"]])
def test_pose_writes_what_the_arithmetic_says(path, avatar, options):
    out = path.with_name("posed.ply")
    assert run("pose", path, *options, "--out", out) == f"{out}\n"
    head = avatar.head
    sliders = {}
    if options:
        from headstudio.heads.expressions import PRESETS as EXPRESSIONS

        sliders = {name: 0.5 * value for name, value in EXPRESSIONS["smile"].items()} | {"jawOpen": 0.25}
    expression, joints = head.drive(sliders)
    if options:
        joints[1] += np.radians([0, 30, -5])
    expected = pose_splats(avatar.splats, skin(head, expression, joints), head.triangles)
    written = read_ply(out)
    assert np.abs(written.means - expected.means).max() < 2e-4  # the avatar file rounds
    assert np.abs(written.opacities - expected.opacities).max() < 1e-4


def test_pose_turns_to_the_subjects_left(path):
    run("pose", path, "--joint", "neck=0,30,0")
    turned = read_ply(path.with_name("man.ply")).means
    run("pose", path, "--out", path.with_name("rest.ply"))
    rest = read_ply(path.with_name("rest.ply")).means
    nose = rest[:, 2].argmax()
    assert turned[nose, 0] - rest[nose, 0] > 0.03
    turn = rotation_matrices(np.radians([0, 30, 0]))
    top = rest[:, 1] > np.quantile(rest[:, 1], 0.9)
    moved = (turn @ (rest[top] - rest[top].mean(0)).T).T
    assert np.abs(moved - (turned[top] - turned[top].mean(0))).max() < 0.002


def test_pose_knows_names_in_any_case_and_a_preset_can_be_overruled(path):
    run("pose", path, "--preset", "SMILE", "--set", "JAWOPEN=0", "--out", path.with_name("a.ply"))
    run("pose", path, "--preset", "smile", "--out", path.with_name("b.ply"))
    run("pose", path, "--preset", "blink", "--set", "eyeBlinkLeft=0", "--out", path.with_name("c.ply"))
    run("pose", path, "--set", "eyeBlinkRight=1", "--out", path.with_name("d.ply"))
    a, b, c, d = (path.with_name(f"{name}.ply").read_bytes() for name in "abcd")
    assert a == b != c == d


def test_render_pictures(path):
    out = run("render", path, "--views", "front,back,-30", "--size", "48x64", "--background", "#102030", "--samples", 2)
    folder = path.parent / "render"
    assert out.splitlines() == [str(folder / name) for name in ("front.png", "back.png", "azimuth-30.png")]
    front, back = (cv2.imread(str(folder / name))[..., ::-1] for name in ("front.png", "back.png"))
    assert front.shape == (64, 48, 3)
    assert front[0, 0].tolist() == [16, 32, 48]
    red = [(picture[..., 0] > 2 * picture[..., 1].astype(int) + 20).mean() for picture in (front, back)]
    assert red[1] > 1.5 * red[0] > 0  # the scalp


def test_render_transparent(path):
    run(
        "render",
        path,
        "--views",
        "front",
        "--size",
        64,
        "--background",
        "transparent",
        "--out",
        path.parent / "x" / "y",
    )
    picture = cv2.imread(str(path.parent / "x" / "y" / "front.png"), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (64, 64, 4)
    assert picture[0, 0, 3] == 0
    assert picture[32, 32, 3] == 255


def test_render_sheet_and_videos(path):
    options = ["--turntable", 0.8, "--motion", 3, "--fps", 5, "--size", 65, "--sheet"]
    names = [line.rpartition("/")[2] for line in run("render", path, *options).splitlines()]
    assert names == ["expressions.png", "turntable.mp4", "motion.mp4"]
    for name, count in (("turntable.mp4", 4), ("motion.mp4", 15)):
        with av.open(str(path.parent / "render" / name)) as container:
            frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
        assert len(frames) == count
        assert frames[0].shape == (66, 66, 3)
        assert max(np.abs(frames[0] - frame).max() for frame in frames) > 50  # it moves


def test_evaluate_several_to_a_file(path):
    out, other = path.with_name("figures.json"), path.with_name("other.avatar.npz")
    other.write_bytes(path.read_bytes())
    assert run("evaluate", path, other, "--out", out) == f"{out}\n"
    first, second = json.loads(out.read_text())
    assert first | {"avatar": str(other)} == second
    assert first["avatar"] == str(path)
    assert first["colours"]["agreeing"] == first["colours"]["of"] == 1
    assert first["seconds"] is None


def test_info_of_an_avatar(path, avatar):
    facts = json.loads(run("info", path, "--json"))
    assert facts["splats"] == len(avatar.splats)
    assert facts["prompt"] == "a man with a red hat"
    assert facts["head's licence"] == "CC0-1.0"
    text = run("info", path)
    assert f"splats               {len(avatar.splats)}\n" in text


def test_info_of_a_job(tmp_path, tiny_prior):
    job = Job.create(tmp_path / "job", small_request(tiny_prior, 3))
    text = run("info", job.folder)
    assert "state     queued" in text
    assert "views=2" in text


def test_worker_serves_a_folder(tmp_path, tiny_prior):
    job = Job.create(tmp_path / "job", small_request(tiny_prior, 2))
    start = time.time()
    assert run("worker", job.folder) == ""
    assert job.finished
    assert job.events()[0].time >= start - 0.01
