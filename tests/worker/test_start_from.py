"""A job that starts from a finished avatar keeps its own copy of it."""

import pytest
from headstudio.avatar.file import load_avatar
from headstudio.errors import UserError
from headstudio.job import Job, JobRequest
from headstudio.train.progress import SilentReporter
from headstudio.worker import serve
from support.jobs import small_request


def test_the_avatar_may_vanish_before_the_job_is_resumed(tmp_path, tiny_prior):
    first = Job.create(tmp_path / "first", small_request(tiny_prior, 2))
    assert serve(first) == 0
    request = small_request(tiny_prior, 6, prompt="a man", start_from=str(first.avatar_path))
    whole = Job.create(tmp_path / "whole", request)
    assert serve(whole) == 0
    broken = Job.create(tmp_path / "broken", request)
    first.avatar_path.write_bytes(b"something else")

    class Stop(SilentReporter):
        def progress(self, progress):
            if progress.step == 4:
                broken.request_cancel()

    assert serve(broken, Stop()) == 130
    assert Job.open(broken.folder).request == request
    assert serve(broken) == 0
    assert broken.avatar_path.read_bytes() == whole.avatar_path.read_bytes()
    assert load_avatar(whole.avatar_path).provenance["start"]["prompt"] == "an old man"


def test_a_missing_avatar_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(UserError, match=r"no avatar file at .*lost"):
        Job.create(tmp_path / "job", JobRequest("a man", start_from=str(tmp_path / "lost.avatar.npz")))
    assert not (tmp_path / "job").exists()


def test_a_damaged_copy_is_one_sentence(tmp_path, tiny_prior):
    damaged = tmp_path / "old.avatar.npz"
    damaged.write_bytes(b"something else")
    job = Job.create(tmp_path / "job", small_request(tiny_prior, 2, start_from=str(damaged)))
    assert serve(job) == 2
    assert "start.avatar.npz is damaged" in job.events()[-1].data["message"]
