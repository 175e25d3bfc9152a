"""Who is in the picture: the attributes of one synthetic head, and how they are drawn at random."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import numpy as np

from .vocabulary import COLOURS, DYED_HAIR, EYES, EYEWEAR, FANTASTIC_SKIN, HAIR, HEADGEAR, LIPS


@dataclass(frozen=True)
class Character:
    """Words, not numbers: every field is a key of a table in ``vocabulary.py`` or one of the few words below.

    ``seed`` decides everything that has no word: the exact face, shade, lengths and the lie of every hair.
    """

    seed: int
    sex: str = "man"  # man, woman
    age: str = "adult"  # young, adult, old
    build: str = "average"  # thin, average, fat
    origin: str = "european"  # european, african, asian
    role: str = ""  # a key of ROLES, or nobody in particular
    skin: str = "fair"
    hair: str = "short"
    hair_colour: str = "brown"
    beard: str = "none"
    beard_colour: str = "brown"
    eye_colour: str = "brown"
    lips: str = ""  # a colour of LIPS, or natural
    headgear: str = "none"
    headgear_colour: str = "red"
    eyewear: str = "none"
    eyewear_colour: str = "black"
    ears: str = "round"  # round, pointed
    horns: bool = False
    earrings: bool = False
    red_nose: bool = False
    freckles: bool = False
    makeup: str = ""  # clown, skull, zombie, robot, alien, statue

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Character:
        return Character(**json.loads(text))


# What a role fixes, and between what it leaves a choice (a tuple). What it does not name stays as drawn.
ROLES: dict[str, dict[str, object]] = {
    "clown": {
        "skin": "white",
        "hair": ("curly", "afro"),
        "hair_colour": ("red", "orange", "green", "blue", "yellow"),
        "beard": "none",
        "lips": "red",
        "red_nose": True,
        "makeup": "clown",
        "headgear": ("none", "none", "hat"),
        "eyewear": "none",
    },
    "zombie": {
        "skin": ("grey", "green"),
        "makeup": "zombie",
        "eye_colour": ("white", "yellow", "red"),
        "lips": "",
        "headgear": "none",
        "eyewear": "none",
        "hair": ("bald", "short", "long", "spiky"),
    },
    "elf": {
        "ears": "pointed",
        "skin": ("pale", "fair"),
        "hair": "long",
        "hair_colour": ("blonde", "white", "brown"),
        "beard": "none",
        "age": "young",
        "eye_colour": ("green", "blue"),
    },
    "orc": {
        "skin": "green",
        "ears": "pointed",
        "sex": "man",
        "hair": ("bald", "mohawk", "ponytail"),
        "hair_colour": "black",
        "eye_colour": ("red", "yellow"),
        "build": "fat",
        "makeup": "orc",
        "lips": "",
    },
    "alien": {
        "skin": ("green", "grey", "blue"),
        "hair": "bald",
        "beard": "none",
        "eye_colour": "black",
        "makeup": "alien",
        "headgear": "none",
        "eyewear": "none",
        "lips": "",
        "build": "thin",
    },
    "robot": {
        "skin": ("silver", "silver", "gold"),
        "hair": "bald",
        "beard": "none",
        "eye_colour": ("red", "blue", "yellow"),
        "makeup": "robot",
        "headgear": "none",
        "eyewear": "none",
        "lips": "",
    },
    "vampire": {
        "skin": "pale",
        "hair": ("short", "long"),
        "hair_colour": "black",
        "eye_colour": "red",
        "lips": "red",
        "beard": "none",
        "headgear": "none",
        "eyewear": "none",
    },
    "devil": {
        "skin": "red",
        "horns": True,
        "hair": ("bald", "short"),
        "hair_colour": "black",
        "beard": ("none", "goatee"),
        "beard_colour": "black",
        "ears": "pointed",
        "eye_colour": ("yellow", "red"),
        "headgear": "none",
    },
    "skull": {
        "skin": "white",
        "makeup": "skull",
        "hair": "bald",
        "beard": "none",
        "eye_colour": "black",
        "lips": "",
        "headgear": "none",
        "eyewear": "none",
    },
    "statue": {
        "skin": ("white", "grey"),
        "makeup": "statue",
        "hair": ("short", "curly"),
        "eyewear": "none",
        "headgear": "none",
        "lips": "",
    },
    "wizard": {
        "sex": "man",
        "age": "old",
        "beard": "long",
        "beard_colour": ("white", "grey"),
        "hair": "long",
        "hair_colour": ("white", "grey"),
        "headgear": "wizard hat",
        "headgear_colour": ("blue", "purple", "navy"),
    },
    "witch": {
        "sex": "woman",
        "skin": ("green", "pale"),
        "hair": "long",
        "hair_colour": ("black", "grey"),
        "headgear": "wizard hat",
        "headgear_colour": "black",
        "beard": "none",
    },
    "pirate": {
        "sex": "man",
        "eyewear": "eyepatch",
        "eyewear_colour": "black",
        "beard": ("short", "long"),
        "headgear": ("headband", "hat"),
        "headgear_colour": ("red", "black"),
        "hair": ("long", "short"),
    },
    "king": {
        "sex": "man",
        "headgear": "crown",
        "headgear_colour": "gold",
        "beard": ("short", "long"),
    },
    "queen": {
        "sex": "woman",
        "headgear": "crown",
        "headgear_colour": ("gold", "silver"),
        "hair": ("long", "bun"),
        "beard": "none",
    },
    "knight": {
        "headgear": "helmet",
        "headgear_colour": "silver",
        "sex": "man",
        "eyewear": "none",
    },
    "viking": {
        "sex": "man",
        "headgear": "helmet",
        "headgear_colour": ("silver", "brown"),
        "horns": True,
        "beard": "long",
        "hair": "long",
        "hair_colour": ("blonde", "ginger"),
        "eyewear": "none",
    },
    "cowboy": {
        "sex": "man",
        "headgear": "cowboy hat",
        "headgear_colour": ("brown", "black"),
        "beard": ("none", "stubble", "moustache"),
    },
    "santa": {
        "sex": "man",
        "age": "old",
        "build": "fat",
        "headgear": "santa hat",
        "headgear_colour": "red",
        "beard": "long",
        "beard_colour": "white",
        "hair": "short",
        "hair_colour": "white",
        "skin": "fair",
    },
    "superhero": {
        "eyewear": "mask",
        "eyewear_colour": ("red", "blue", "black", "green"),
        "beard": "none",
        "headgear": "none",
        "hair": ("short", "spiky", "long"),
    },
}

OWN_TRAIT = 0.2  # chance of each trait to stay as drawn
OWN_BEARD_COLOUR = 0.35  # chance that it is not the hair's: or a model learns that the hair's word paints the beard
_OWN_TRAITS = ("skin", "hair", "hair_colour", "beard", "beard_colour", "eye_colour", "lips", "headgear",
               "headgear_colour", "eyewear", "eyewear_colour")  # fmt: skip

_ORIGIN_SKINS = {
    "european": ("pale", "fair", "fair", "tan", "olive"),
    "african": ("brown", "dark", "dark"),
    "asian": ("fair", "tan", "olive"),
}


def _pick(rng: np.random.Generator, options, weights=None) -> str:
    options = list(options)
    p = None if weights is None else np.asarray(weights, float) / np.sum(weights)
    return options[int(rng.choice(len(options), p=p))]


def sample_character(rng: np.random.Generator) -> Character:
    """A random character: two thirds ordinary people with one fantastic thing now and then, one third in a role."""
    seed = int(rng.integers(2**31))
    sex = _pick(rng, ("man", "woman"))
    age = _pick(rng, ("young", "adult", "old"), (0.3, 0.4, 0.3))
    origin = _pick(rng, ("european", "african", "asian"), (0.5, 0.25, 0.25))
    skin = _pick(rng, _ORIGIN_SKINS[origin])
    if rng.random() < 0.22:
        skin = _pick(rng, FANTASTIC_SKIN)
    hair_colour = _hair_colour(rng, origin, age)
    character = Character(
        seed=seed,
        sex=sex,
        age=age,
        build=_pick(rng, ("thin", "average", "fat"), (0.2, 0.6, 0.2)),
        origin=origin,
        skin=skin,
        hair=_hair(rng, sex),
        hair_colour=hair_colour,
        beard=_beard(rng, sex),
        beard_colour=_pick(rng, HAIR) if rng.random() < OWN_BEARD_COLOUR else hair_colour,
        eye_colour=_pick(rng, EYES, (5, 5, 4, 2, 2, 2, 1.5, 1.5, 1)),
        lips=_pick(rng, LIPS, (3, 2, 1.5, 1.5, 1.5)) if rng.random() < (0.55 if sex == "woman" else 0.08) else "",
        headgear=_pick(rng, HEADGEAR, (20, 3, 1.2, 1.2, 1, 0.6, 1.8, 1.8, 1.5, 1.5, 1.2)),
        headgear_colour=_pick(rng, COLOURS),
        eyewear=_pick(rng, EYEWEAR, (10, 1.8, 0.9, 0.3, 0.4)),
        eyewear_colour=_pick(rng, COLOURS) if rng.random() < 0.5 else "black",
        ears="pointed" if rng.random() < 0.05 else "round",
        horns=bool(rng.random() < 0.03),
        earrings=bool(rng.random() < (0.25 if sex == "woman" else 0.04)),
        freckles=bool(rng.random() < 0.06),
    )
    if rng.random() < 0.33:
        character = in_role(character, _pick(rng, ROLES), rng)
    if character.headgear == "santa hat":
        character = replace(character, headgear_colour="red")
    if character.headgear == "crown" and rng.random() < 0.6:
        character = replace(character, headgear_colour="gold")
    return character


def in_role(character: Character, role: str, rng: np.random.Generator) -> Character:
    """The character dressed and painted for a key of ``ROLES``, now and then with a trait of its own (a green elf, a
    king in a blue hat): prompts ask for such."""
    fixed = {
        name: _pick(rng, value) if isinstance(value, tuple) else value
        for name, value in ROLES[role].items()
        if name not in _OWN_TRAITS or rng.random() >= OWN_TRAIT
    }
    dressed = replace(character, role=role, horns=False, **{k: v for k, v in fixed.items() if k != "horns"})
    dressed = replace(dressed, horns=bool(fixed.get("horns", False)))
    if dressed.sex == "woman" and "beard" not in fixed:
        dressed = replace(dressed, beard="none")
    if "beard_colour" not in fixed:
        dressed = replace(dressed, beard_colour=dressed.hair_colour)
    return dressed


def _hair(rng: np.random.Generator, sex: str) -> str:
    styles = ("bald", "buzz", "short", "long", "curly", "afro", "mohawk", "ponytail", "bun", "spiky")
    weights = (
        (2.2, 1, 3, 1.2, 1.4, 1, 0.8, 0.5, 0.4, 1) if sex == "man" else (0.4, 0.4, 1.5, 4, 2, 1.2, 0.4, 1.2, 1, 0.5)
    )
    return _pick(rng, styles, weights)


def _hair_colour(rng: np.random.Generator, origin: str, age: str) -> str:
    if rng.random() < 0.25:
        return _pick(rng, DYED_HAIR)
    if age == "old" and rng.random() < 0.75:
        return _pick(rng, ("grey", "white"))
    if origin == "european":
        return _pick(rng, ("black", "brown", "blonde", "ginger", "white"), (2, 3, 3, 2, 0.5))
    return _pick(rng, ("black", "brown", "blonde"), (6, 1.5, 0.5))


def _beard(rng: np.random.Generator, sex: str) -> str:
    if sex == "woman":
        return "none"
    return _pick(rng, ("none", "stubble", "moustache", "goatee", "short", "long"), (5, 0.8, 1.3, 1, 1.5, 1.5))
