"""Bad input of every kind: one clear line on stderr, exit code 2, and nothing left behind."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from headstudio.avatar.file import save_avatar
from headstudio.cli import app
from headstudio.job import Job, JobRequest
from support.jobs import SMALL
from support.painted_avatar import painted_avatar
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def avatar():
    return painted_avatar({})


@pytest.fixture
def folder(avatar, tmp_path, monkeypatch):
    """A folder with a good avatar, damaged files of several kinds, and a job; it is the current one."""
    monkeypatch.chdir(tmp_path)
    save_avatar("man.avatar.npz", avatar)
    good = (tmp_path / "man.avatar.npz").read_bytes()
    (tmp_path / "short.avatar.npz").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.avatar.npz").touch()
    (tmp_path / "text.avatar.npz").write_text("not an archive")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "flame.pkl").write_bytes(b"\x80\x02garbage")
    (tmp_path / "prior").mkdir()
    (tmp_path / "prior" / "model_index.json").write_text("{")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    Job.create(tmp_path / "job", JobRequest("a man", steps=7))
    (tmp_path / "bad-job").mkdir()
    (tmp_path / "bad-job" / "job.json").write_text("{]")
    return tmp_path


def listing(folder):
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*"))


def refuse(folder, *arguments, message):
    before = listing(folder)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    # Wrong numbers and missing arguments are told by the parser of the command line, in its own form
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith(("headstudio: ", "Error: "))
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    if line.startswith("headstudio: "):
        assert len(result.stderr.strip().splitlines()) == 1
    assert listing(folder) == before


SETTINGS = [f"--setting={name}={value}" for name, value in SMALL.items()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate"], "Say whom to make"),
        (["generate", "--resume"], "Say whom to make"),
        (["generate", ""], "prompt is empty"),
        (["generate", "  "], "prompt is empty"),
        (["generate", "", "--out", "new"], "prompt is empty"),
        (["generate", "a" * 10_000], "10000 characters"),
        (["generate", "a man", "--negative", "a" * 10_000], "negative prompt has 10000"),
        (["generate", "a man", "--preset", "fast"], "no preset called 'fast'. Presets: draft"),
        (["generate", "a man", "--steps", 0], "number of steps is 0"),
        (["generate", "a man", "--steps", -3], "number of steps is -3"),
        (["generate", "a man", "--steps", "many"], "--steps"),
        (["generate", "a man", "--seed", -1], "seed is -1"),
        (["generate", "a man", "--name", "a/b"], "is no file name"),
        (["generate", "a man", "--setting", "views"], "expected something like views=2"),
        (["generate", "a man", "--setting", "vews=2"], "no setting called 'vews'"),
        (["generate", "a man", "--setting", "views=-2"], "views is -2"),
        (["generate", "a man", "--setting", "render_size=big"], "render_size is 'big'"),
        (["generate", "a man", "--head", "nothing.pkl", "--prior", "prior"], "There is no head at nothing.pkl"),
        (["generate", "a man", "--head", "flame.pkl", "--prior", "prior"], "flame.pkl"),
        (["generate", "a man", "--prior", "nowhere"], "There is no prior 'nowhere'"),
        (["generate", "a man", "--prior", "prior"], "model_index.json is damaged"),
        (["generate", "a man", "--prior", "someone/model@main"], "needs a revision"),
        (["generate", "a man", "--device", "gpu", "--prior", "prior"], "The device 'gpu' cannot be used"),
        (["generate", "a man", "--out", "full"], "is not empty"),
        (["generate", "a man", "--out", "man.avatar.npz"], "Cannot write"),
        (["generate", "a man", "--out", "man.avatar.npz/below"], "Cannot write"),
        (["generate", "a man", "--out", "/proc/nothing"], "Cannot write"),
        (["generate", "a man", "--out", "job"], "Add --resume to go on"),
        (["generate", "--resume", "--out", "nowhere"], "There is no job in nowhere"),
        (["generate", "--resume", "--out", "bad-job"], "job.json is damaged"),
        (["generate", "a woman", "--resume", "--out", "job"], "was started with prompt 'a man', not 'a woman'"),
        (["generate", "--resume", "--out", "job", "--steps", 8], "was started with steps 7, not 8"),
        (["pose"], "AVATAR"),
        (["pose", "nothing.avatar.npz"], "There is no avatar file at nothing.avatar.npz"),
        (["pose", "short.avatar.npz"], "short.avatar.npz is damaged"),
        (["pose", "empty.avatar.npz"], "empty.avatar.npz is damaged"),
        (["pose", "text.avatar.npz"], "text.avatar.npz is damaged"),
        (["pose", "other.npz"], "other.npz"),
        (["pose", "full"], "There is no job in"),
        (["pose", "job"], "is queued and has no avatar yet"),
        (["pose", "man.avatar.npz", "--set", "jawOpn=1"], "no control called 'jawOpn'. Did you mean jawOpen"),
        (["pose", "man.avatar.npz", "--set", "jawOpen"], "expected something like jawOpen=0.5"),
        (["pose", "man.avatar.npz", "--set", "jawOpen=wide"], "expected a number"),
        (["pose", "man.avatar.npz", "--set", "jawOpen=nan"], "expected a number"),
        (["pose", "man.avatar.npz", "--preset", "simle"], "Did you mean smile"),
        (["pose", "man.avatar.npz", "--joint", "neck=1,2"], "expected 3 numbers"),
        (["pose", "man.avatar.npz", "--joint", "elbow=1,2,3"], "no joint called 'elbow'. Known: root, neck"),
        (["pose", "man.avatar.npz", "--out", "nowhere/man.ply"], "There is no folder"),
        (["pose", "man.avatar.npz", "--out", "full"], "Cannot write"),
        (["render", "nothing.avatar.npz"], "There is no avatar file"),
        (["render", "short.avatar.npz"], "is damaged"),
        (["render", "man.avatar.npz", "--size", "-64"], "cannot be drawn"),
        (["render", "man.avatar.npz", "--size", "0"], "cannot be drawn"),
        (["render", "man.avatar.npz", "--size", "64x-3"], "cannot be drawn"),
        (["render", "man.avatar.npz", "--size", "large"], "expected a side such as 512"),
        (["render", "man.avatar.npz", "--size", "100000"], "is too large"),
        (["render", "man.avatar.npz", "--samples", "0"], "cannot be drawn"),
        (["render", "man.avatar.npz", "--views", "fornt"], "Did you mean front"),
        (["render", "man.avatar.npz", "--views", ","], "names no view"),
        (["render", "man.avatar.npz", "--background", "mauve"], "no background called 'mauve'"),
        (["render", "man.avatar.npz", "--turntable", "0"], "--turntable 0"),
        (["render", "man.avatar.npz", "--motion", "-1"], "--motion -1"),
        (["render", "man.avatar.npz", "--motion", "nan"], "--motion nan"),
        (["render", "man.avatar.npz", "--motion", "2", "--background", "transparent"], "cannot be transparent"),
        (["render", "man.avatar.npz", "--motion", "2", "--fps", "0"], "--fps 0"),
        (["render", "man.avatar.npz", "--motion", "2", "--seed", "-1"], "--seed -1"),
        (["render", "man.avatar.npz", "--device", "tpu"], "The device 'tpu' cannot be used"),
        (["render", "man.avatar.npz", "--out", "full/mine.txt"], "Cannot make the folder"),
        (["evaluate"], "AVATAR"),
        (["evaluate", "man.avatar.npz", "nothing.avatar.npz"], "There is no avatar file"),
        (["evaluate", "man.avatar.npz", "--out", "nowhere/figures.json"], "There is no folder"),
        (["info", "nothing"], "nothing"),
        (["info", "full"], "There is no job in"),
        (["info", "text.avatar.npz"], "is damaged"),
        (["settings", "--preset", "fast"], "no preset called 'fast'"),
        (["worker", "nowhere"], "There is no job in"),
        (["worker", "full"], "There is no job in"),
        (["worker", "bad-job"], "job.json is damaged"),
        (["sculpt"], "sculpt"),
        (["render", "man.avatar.npz", "--colour", "red"], "--colour"),
    ],
    ids=lambda value: " ".join(map(str, value))[:60] if isinstance(value, list) else "",
)
def test_refused(folder, arguments, message):
    refuse(folder, *arguments, message=message)


def test_a_head_without_landmarks(folder, tiny_prior):
    """FLAME's own form has none: where the file's template cannot be matched to a face, training has nothing to show
    the prior."""
    np.savez(folder / "bare.npz", v_template=np.zeros((4, 3)), f=np.array([[0, 1, 2]]))
    refuse(folder, "generate", "a man", "--prior", tiny_prior, "--head", "bare.npz", message="bare.npz")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a folder in which not even root can make files")
@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "a man", "--out", "/proc/new"],
        ["pose", "man.avatar.npz", "--out", "/proc/man.ply"],
        ["render", "man.avatar.npz", "--out", "/proc/pictures"],
        ["render", "man.avatar.npz", "--out", "/proc", "--views", "front", "--size", "16"],
        ["render", "man.avatar.npz", "--out", "/proc", "--motion", "0.1", "--size", "16"],
        ["evaluate", "man.avatar.npz", "--out", "/proc/figures.json"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_an_unwritable_folder(folder, arguments):
    refuse(folder, *arguments, message="headstudio: Cannot ")


def test_a_fresh_job_that_fails_at_loading_leaves_the_folders_above(folder):
    refuse(folder, "generate", "a man", "--prior", "prior", "--out", "full/below", message="is damaged")
