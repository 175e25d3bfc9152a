"""Presence of hair, beard, hat and glasses against what the generator was told; second faces."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from headstudio.avatar.file import Avatar, bake_identity
from headstudio.evaluate.agreement import agreement
from headstudio.evaluate.caption import presence_claims
from headstudio.evaluate.portraits import portrait
from headstudio.evaluate.presence import AZIMUTHS, attributes, features, present
from headstudio.evaluate.second_face import likeness, second_face
from headstudio.evaluate.steady import steady
from headstudio.export.pictures import Stage
from headstudio.starter.caption import caption
from headstudio.starter.character import Character, sample_character
from headstudio.starter.scene import Studio


@pytest.fixture(scope="module")
def studio():
    return Studio()


def stage_of(studio: Studio, character: Character) -> Stage:
    model = studio.build(character)
    head = bake_identity(studio.arrays, model.identity.numpy())
    return Stage(Avatar(head, model.gaussians.to_arrays(), {}))


def truth(c: Character) -> dict[str, bool]:
    """What the words of a character decide; what lies between (curls: long or short?) is left out."""
    known = {"headgear": c.headgear != "none"}
    if c.headgear == "none":
        known["hair"] = c.hair != "bald"
    if c.hair in ("long", "short", "buzz", "bald"):
        known["long hair"] = c.hair == "long"
    if c.beard not in ("stubble", "moustache"):
        known["beard"] = c.beard != "none"
    if c.beard != "stubble":
        known["moustache"] = c.beard != "none"
    if c.eyewear in ("none", "glasses", "sunglasses"):
        known["glasses"] = c.eyewear != "none"
    return known


def test_random_characters_are_classified(studio):
    numbers, right = np.random.default_rng(2024), defaultdict(list)
    for _ in range(24):
        character = sample_character(numbers)
        stage = stage_of(studio, character)
        gaussians = stage.pose()
        seen = present(features({a: portrait(stage.arrays, gaussians, a) for a in AZIMUTHS}))
        for name, value in truth(character).items():
            right[name].append(seen[name] == value)
    assert set(right) == {"hair", "long hair", "beard", "moustache", "headgear", "glasses"}
    assert np.mean(np.concatenate(list(right.values()))) > 0.92
    assert {name: np.mean(values) for name, values in right.items() if np.mean(values) < 0.8} == {}


def test_colours_of_random_characters_are_read(studio):
    """What a thorough caption says of a character's colours is seen on that character itself."""
    numbers, right = np.random.default_rng(5), []
    for _ in range(14):
        character = sample_character(numbers)
        said = caption(character, "", 0, numbers, thorough=True)
        figures = agreement(stage_of(studio, character), said)
        right.extend(claim["agrees"] for claim in (figures or {"claims": ()})["claims"])
    assert len(right) > 25
    assert np.mean(right) > 0.9


@pytest.mark.parametrize("noun", ["hat", "top hat", "cap", "beanie", "helmet", "headband", "crown"])
def test_colour_of_headgear_on_hair(studio, noun):
    """Also where hair shows above it, and where the head is small beside it."""
    character = Character(seed=3, hair="short", hair_colour="black", headgear=noun, headgear_colour="green")
    (claim,) = agreement(stage_of(studio, character), f"a man with a green {noun}")["claims"]
    assert claim["agrees"], claim
    (claim,) = agreement(stage_of(studio, replace(character, headgear_colour="white")), f"a green {noun}")["claims"]
    assert claim["nearest"] in ("white", "silver"), claim


def test_a_bald_man_and_one_with_everything(studio):
    plain = Character(seed=3, hair="bald")
    dressed = replace(plain, beard="long", headgear="top hat", eyewear="glasses", hair="long")
    bare = attributes(stage_of(studio, plain), "a bald man with a beard")
    assert not any(bare["seen"].values())
    assert (bare["agreeing"], bare["of"]) == (1, 2)
    full = attributes(stage_of(studio, dressed), "a man with a beard, long hair, glasses and a hat")
    assert all(full["seen"].values())
    assert full["agreeing"] == full["of"] == 5


def test_a_face_on_the_back_is_found(studio):
    stage = stage_of(studio, Character(seed=3, hair="bald"))
    assert second_face(stage)["passes"]
    gaussians = stage.pose()
    front, back = (portrait(stage.arrays, gaussians, azimuth) for azimuth in (0.0, 180.0))
    painted = replace(back, colour=np.roll(front.colour, (5, -4), (0, 1)), alpha=front.alpha)
    assert likeness(front, painted) > 0.9
    assert likeness(front, replace(painted, colour=painted.colour[:, ::-1], alpha=front.alpha[:, ::-1])) > 0.9


def test_the_generators_heads_are_steady(studio):
    figures = steady(stage_of(studio, Character(seed=3, hair="bald")))
    assert figures["passes"]
    assert figures["rest_px"] == 0
    assert figures["swing_px"] < 5


@pytest.mark.parametrize(
    ("prompt", "claims"),
    [
        ("a man without a beard, with short brown hair", {"beard": False, "hair": True, "long hair": False}),
        ("a hairless, clean-shaven man with spectacles", {"hair": False, "beard": False, "glasses": True}),
        ("blue hair and a red hat, without glasses", {"hair": True, "headgear": True, "glasses": False}),
        ("an elf", {}),
    ],
)
def test_presence_claims(prompt, claims):
    assert presence_claims(prompt) == claims
