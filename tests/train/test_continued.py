"""Training that starts from a finished avatar."""

from dataclasses import replace

import numpy as np
import pytest
from headstudio.avatar.file import bake_identity, load_avatar, save_avatar
from headstudio.errors import UserError
from headstudio.heads.head import Head
from headstudio.train.continued import identity_of
from headstudio.train.loop import TrainingStopped, train
from headstudio.train.state import Request, State
from support.synthetic_head import synthetic_head
from support.training import SIX_STEPS, Notes


@pytest.fixture(scope="module")
def orc(head, prior_folder, tmp_path_factory):
    """A finished avatar as it comes out of its file."""
    from headstudio.guidance.prior import Prior

    path = tmp_path_factory.mktemp("orc") / "orc.avatar.npz"
    settings = replace(SIX_STEPS, lr_shape=0.05)  # so that it learns a shape of its own
    save_avatar(path, train(settings, head, Prior.load(prior_folder, device="cpu"), "a green orc", seed=3))
    return load_avatar(path)


def test_the_start_is_the_avatar(head, orc):
    state = State.start(Request(SIX_STEPS, head, "", "", "a clown", "", 0, orc), Head(head))
    start = state.avatar()
    assert np.abs(orc.head.vertices - head.vertices).max() > 2e-4
    assert np.abs(start.head.vertices - orc.head.vertices).max() < 1e-6
    assert np.array_equal(start.splats.triangle, orc.splats.triangle)
    for name, tolerance in (("offset", 0), ("sh", 0), ("scale", 1e-6), ("rotation", 1e-4), ("opacity", 2e-5)):
        difference = np.abs(getattr(start.splats, name) - getattr(orc.splats, name)).max()
        assert difference <= tolerance * max(1, np.abs(getattr(orc.splats, name)).max()), name


def test_a_run_goes_on_from_there_and_says_so(head, prior, orc):
    settings = replace(SIX_STEPS, steps=1, densify_until=0.0, prune_at=())
    notes = Notes()
    avatar = train(settings, head, prior, "a clown", reporter=notes, start=orc)
    assert [p.step for p in notes.progresses] == [1]
    moved = np.abs(avatar.splats.sh - orc.splats.sh)
    # One step of Adam moves nothing by more than its rate
    assert 0 < moved.max() <= settings.lr_colour * 1.01
    assert avatar.provenance["prompt"] == "a clown"
    assert avatar.provenance["start"]["prompt"] == "a green orc"
    assert "start" not in orc.provenance


def test_a_checkpoint_remembers_what_its_run_started_from(head, prior, orc, tmp_path):
    arguments = (SIX_STEPS, head, prior, "a clown")
    whole = train(*arguments, start=orc)
    with pytest.raises(TrainingStopped):
        train(*arguments, reporter=Notes(3), checkpoint_dir=tmp_path, start=orc)
    for other in (None, replace(orc, splats=replace(orc.splats, sh=orc.splats.sh * 0.5))):
        with pytest.raises(UserError, match="differs in start"):
            train(*arguments, checkpoint_dir=tmp_path, resume=True, start=other)
    resumed = train(*arguments, checkpoint_dir=tmp_path, resume=True, start=orc)
    assert np.array_equal(resumed.splats.sh, whole.splats.sh)
    assert np.array_equal(resumed.head.vertices, whole.head.vertices)


def test_shape_coefficients_come_back(head):
    wanted = np.random.default_rng(1).normal(0, 1, len(head.identity_names)).astype(np.float32)
    assert np.allclose(identity_of(head, bake_identity(head, wanted)), wanted, atol=1e-4)
    assert not identity_of(head, bake_identity(head)).any()


def test_another_head_is_refused_by_name(head, prior, orc):
    bent = replace(head, name="bent", vertices=head.vertices + np.float32([0, 0, 0.01]) * head.vertices[:, :1] ** 2)
    fewer = replace(synthetic_head(), name="fewer", triangles=head.triangles[:, [1, 2, 0]])
    for other in (bent, fewer):
        with pytest.raises(UserError, match=f"on the head '{head.name}', this job's head is '{other.name}'"):
            train(SIX_STEPS, replace(other, controls=head.controls, landmarks=head.landmarks), prior, "x", start=orc)
