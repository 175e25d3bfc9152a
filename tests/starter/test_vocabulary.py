"""The prior's language: colours that can be told apart, synonyms that lead somewhere, captions that say what is so."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest
from headstudio.starter import vocabulary
from headstudio.starter.caption import caption
from headstudio.starter.character import ROLES, Character, in_role, sample_character
from headstudio.starter.tokenizer import build_tokenizer, known_words, token_words
from headstudio.starter.vocabulary import STOP_WORDS, SYNONYMS, words_of


def lab(colours) -> np.ndarray:
    """CIELAB of sRGB colours [N, 3] in 0..255."""
    return cv2.cvtColor(np.asarray(colours, np.float32)[None] / 255, cv2.COLOR_RGB2LAB)[0]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("table", ["COLOURS", "SKIN", "HAIR", "EYES", "LIPS"])
def test_colours_of_one_thing_differ(table):
    colours = getattr(vocabulary, table)
    for (name, first), (other, second) in combinations(colours.items(), 2):
        difference = float(np.linalg.norm(lab([first]) - lab([second])))
        assert difference > 10, f"{table}: {name} and {other} differ by {difference:.1f}"


def test_synonyms_lead_to_words_with_a_token():
    tokens = set(token_words()) | {"a", "an", "the", "and", "of"}
    for phrase, meaning in SYNONYMS.items():
        assert set(words_of(meaning)) <= tokens, (phrase, meaning)


def test_no_synonym_is_a_token_that_could_never_be_reached():
    assert not {phrase for phrase in SYNONYMS if phrase in token_words()}


def test_known_words_cover_tokens_synonyms_and_stop_words():
    known = set(known_words())
    assert set(token_words()) <= known
    assert {word for phrase in SYNONYMS for word in words_of(phrase)} <= known
    assert known >= STOP_WORDS
    assert len(known) >= 250
    assert "zorblax" not in known


def test_the_negative_prompt_is_known(tokenizer):
    from headstudio.guidance.prompts import DEFAULT_NEGATIVE

    assert not set(words_of(DEFAULT_NEGATIVE)) - set(known_words())
    assert len(tokenizer(DEFAULT_NEGATIVE).input_ids) <= tokenizer.model_max_length


@pytest.mark.parametrize(
    ("prompt", "read_as"),
    [
        ("A Gray-haired GRANDFATHER, smiling!", "grey hair old man smiling"),
        ("a bearded man", "with beard man"),
        ("a man without a beard", "man clean shaven"),
        ("a woman with no hat", "woman with without hat"),
        ("a zorblax with a Baseball Cap", "with cap"),
        ("low-resolution", "low resolution"),
        ("", ""),
        ("!?,", ""),
    ],
)
def test_prompts_are_read_as_words(tokenizer, prompt, read_as):
    assert tokenizer.decode(tokenizer(prompt).input_ids, skip_special_tokens=True) == read_as


def test_captions_survive_the_tokenizer(tokenizer):
    rng = np.random.default_rng(3)
    for index in range(200):
        text = caption(sample_character(rng), "", index % 3, rng)
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert len(ids) <= tokenizer.model_max_length
        again = tokenizer.decode(ids, skip_special_tokens=True)
        assert tokenizer(again).input_ids == ids


def test_tokenizer_survives_its_file(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "a smiling old man with a white mustache, front view"
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.model_max_length == tokenizer.model_max_length


def _captions(character: Character, count: int = 300, mood: str = "", view: int = 0) -> list[str]:
    rng = np.random.default_rng(7)
    return [caption(character, mood, view, rng) for _ in range(count)]


def test_every_attribute_is_said_in_some_caption():
    character = Character(
        seed=0, age="old", build="fat", origin="asian", skin="tan", hair="long", hair_colour="purple", beard="goatee",
        beard_colour="green", eye_colour="grey", lips="pink", headgear="top hat", headgear_colour="silver",
        eyewear="sunglasses", eyewear_colour="orange", ears="pointed", horns=True, earrings=True, freckles=True,
    )  # fmt: skip
    said = " ".join(_captions(character, mood="sad"))
    for words in (
        "old", "fat", "asian", "tan skin", "long purple hair", "green goatee", "pink lips", "silver top hat", "sad",
        "orange sunglasses", "pointed ears", "horns", "earrings", "freckles", "front view", "man",
    ):  # fmt: skip
        assert words in said, words
    # Dark glasses hide the eyes
    assert "eyes" not in said


def test_captions_never_say_what_is_not_so():
    rng = np.random.default_rng(11)
    for index in range(1500):
        c = sample_character(rng)
        text = caption(c, "", index % 3, rng)
        words = words_of(text)
        assert ("beard" in words) <= (c.beard in ("short", "long") or "without a beard" in text), text
        assert ("moustache" in words) <= (c.beard == "moustache")
        assert ("hat" in words) <= (c.headgear.endswith("hat") or "without a hat" in text), text
        assert ("crown" in words) <= (c.headgear == "crown")
        assert ("sunglasses" in words) <= (c.eyewear == "sunglasses")
        assert ("mohawk" in words) <= (c.hair == "mohawk")
        assert ("bald" in words) <= (c.hair == "bald")
        assert ("woman" in words) <= (c.sex == "woman")
        for role in ROLES:
            noun = role in words and f"{role} hat" not in text and f"{role} makeup" not in text
            assert noun <= (c.role == role), text


def test_view_words_are_those_of_the_view_prompts():
    for view, suffix in enumerate((", front view", ", side view", ", back view")):
        captions = _captions(Character(seed=0), view=view)
        share = np.mean([text.endswith(suffix) for text in captions])
        assert 0.9 < share < 1
        assert not any("view" in text.removesuffix(suffix) for text in captions)


@pytest.mark.parametrize("role", sorted(ROLES))
def test_roles_dress_their_characters(role):
    """Most of what a role says, and what makes it one always; but now and then a trait is the character's own."""
    rng = np.random.default_rng(5)
    suits: dict[str, list[bool]] = {name: [] for name in ROLES[role]}
    for _ in range(100):
        character = in_role(sample_character(rng), role, rng)
        for name, value in ROLES[role].items():
            suits[name].append(getattr(character, name) in (value if isinstance(value, tuple) else (value,)))
        assert character.beard == "none" or character.sex == "man" or "beard" in ROLES[role]
    for name in suits.keys() & {"sex", "age", "makeup", "horns", "ears", "red_nose"}:
        assert all(suits[name]), name
    assert all(np.mean(values) > 0.68 for values in suits.values())
    assert np.mean([all(row) for row in zip(*suits.values(), strict=True)]) < 0.98


def test_characters_are_words_of_the_vocabulary():
    rng = np.random.default_rng(2)
    for _ in range(500):
        c = sample_character(rng)
        assert c.skin in vocabulary.SKIN
        assert c.hair in vocabulary.HAIR_STYLES
        assert c.hair_colour in vocabulary.HAIR
        assert c.beard in vocabulary.BEARDS
        assert c.beard_colour in vocabulary.HAIR
        assert c.eye_colour in vocabulary.EYES
        assert c.lips in ("", *vocabulary.LIPS)
        assert c.headgear in vocabulary.HEADGEAR
        assert c.eyewear in vocabulary.EYEWEAR
        assert c.headgear_colour in vocabulary.COLOURS
        assert c.eyewear_colour in vocabulary.COLOURS
