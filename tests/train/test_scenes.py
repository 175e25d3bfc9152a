"""What a step's pictures show: whole heads from all around, and close-ups of the face wherever it has turned to."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from headstudio.condition.landmarks import face_middle
from headstudio.guidance.prompts import PromptEmbeddings
from headstudio.heads.head import Head
from headstudio.train.scenes import SceneSampler
from support.training import SIX_STEPS


@pytest.fixture
def draw(head, prior):
    settings = replace(SIX_STEPS, views=6, neutral_share=0.0)
    return SceneSampler(settings, Head(head), PromptEmbeddings.encode(prior, "an orc", ""))


@pytest.mark.parametrize("close_ups", [0, 1, 4])
def test_the_last_pictures_look_at_the_face_and_the_others_at_the_head(head, draw, close_ups):
    body = Head(head)
    for seed in range(5):
        scene = draw(np.random.default_rng(seed), close_ups)
        assert scene.close_up.tolist() == [False] * (6 - close_ups) + [True] * close_ups
        face = face_middle(head, body(scene.expression[None], scene.joints[None]))
        middle = torch.full((2,), SIX_STEPS.render_size / 2)
        for view in range(6):
            target = face if scene.close_up[view] else torch.as_tensor(head.centre, dtype=torch.float32)[None]
            pixel, _ = scene.camera[view].project(target)
            torch.testing.assert_close(pixel[0], middle, atol=1e-2, rtol=0)


def test_parts_of_a_scene_are_its_rows(draw):
    scene = draw(np.random.default_rng(0), 2)
    parts = list(scene.parts(4))
    assert [rows for rows, _ in parts] == [slice(0, 4), slice(4, 8)]
    assert [part.close_up.tolist() for _, part in parts] == [[False] * 4, [True] * 2]
    assert torch.cat([part.camera.intrinsics for _, part in parts]).equal(scene.camera.intrinsics)
    assert torch.cat([part.background for _, part in parts]).equal(scene.background)
