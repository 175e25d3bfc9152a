"""Captions: what one picture shows, said in one of many ways.

What is unusual of a character is nearly always said; what anyone would take for granted (brown eyes, no hat, a clown's
white face) only now and then. So a short prompt means a plain head and not just any head: the pictures that a model
makes of it from different sides agree. A caption never says what is not so.
"""

from __future__ import annotations

import numpy as np

from ..guidance.prompts import VIEW_SUFFIXES
from .character import ROLES, Character

_OPENINGS = (
    "",
    "",
    "",
    "a photo of ",
    "a portrait of ",
    "portrait of ",
    "the head of ",
    "the face of ",
    "a high quality photo of ",
    "a 3d head of ",
    "a realistic portrait of ",
)
_BALD_HEADS = ("bald", "with a bald head")
_CLEAN_SHAVEN = ("clean shaven", "without a beard")


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def caption(character: Character, mood: str, view: int, rng: np.random.Generator, thorough: bool = False) -> str:
    """One way to say it. ``mood``: smiling, angry, sad, surprised or "". ``view``: row of ``VIEW_SUFFIXES``.

    A thorough caption leaves nearly nothing out: from those a model learns fastest which word means what.
    """
    phrases = _told(character, rng, 0.75 if thorough else 0.2)
    rng.shuffle(phrases)
    adjectives = _adjectives(character, mood, rng)
    noun = _noun(character, rng)
    form = rng.random()
    if form < 0.2:  # a list
        parts = [" ".join([*adjectives, noun]), *(_bare(phrase) for phrase in phrases)]
        text = ", ".join(parts)
    else:
        text = _OPENINGS[rng.integers(len(_OPENINGS))] + _article(" ".join([*adjectives, noun])) + _joined(phrases, rng)
    # Now and then without a view: people who try the prior by itself do not write one
    return text + (VIEW_SUFFIXES[view] if rng.random() < 0.95 else "")


def words_in_captions() -> frozenset[str]:
    """Every word that ``caption`` can write, found by writing many captions of many characters."""
    from .character import sample_character
    from .vocabulary import MOODS, words_of

    moods = ("", *MOODS)
    rng = np.random.default_rng(0)
    words: set[str] = set(ROLES)
    for index in range(6000):
        character = sample_character(rng)
        mood = moods[index % len(moods)]
        words.update(words_of(caption(character, mood, index % 3, rng)))
    return frozenset(words)


def _noun(c: Character, rng: np.random.Generator) -> str:
    if c.role:
        noun = {"skull": "skull", "superhero": "superhero"}.get(c.role, c.role)
        sexed = ROLES[c.role].get("sex") is None and rng.random() < 0.3
        return f"{c.sex} {noun}" if sexed and noun != "skull" else noun
    return c.sex if rng.random() < 0.93 else "person"


def _adjectives(c: Character, mood: str, rng: np.random.Generator) -> list[str]:
    words = []
    if mood and rng.random() < 0.6:
        words.append(mood)
    if c.age != "adult" and rng.random() < (0.35 if c.role else 0.9 if c.age == "old" else 0.6):
        words.append(c.age)
    if c.build != "average" and rng.random() < (0.15 if c.role else 0.35):
        words.append(c.build)
    natural = c.skin in ("pale", "fair", "tan", "olive", "brown", "dark")
    if not c.role and natural and rng.random() < 0.25:
        words.append(c.origin)
    if not c.role and not natural and rng.random() < 0.15:
        words.append(c.skin)
    if c.hair == "bald" and c.headgear == "none" and not c.role and rng.random() < 0.6:
        words.append("bald")
    return words


def _by_role(c: Character, field: str) -> bool:
    """The character's role leaves no other value for this field."""
    return ROLES.get(c.role, {}).get(field) == getattr(c, field)


def _told(c: Character, rng: np.random.Generator, plainly: float) -> list[str]:
    """Phrases that may follow the noun, each true. ``plainly``: the chance of one that goes without saying."""
    out: list[str] = []

    def add(phrase: str, *, plain: bool, chance: float = 0.97) -> None:
        if rng.random() < (plainly if plain else chance):
            out.append(phrase)

    add(f"with {c.skin} skin", plain=c.skin in ("pale", "fair", "tan") or _by_role(c, "skin"))
    if c.hair == "bald":
        if c.headgear == "none":
            add(_BALD_HEADS[1], plain=_by_role(c, "hair"))
    elif c.headgear != "helmet" or c.hair == "long":
        usual = (_by_role(c, "hair") or c.hair == _usual_hair(c)) and _usual_hair_colour(c)
        add(_hair_phrase(c, rng), plain=usual)
    if c.beard != "none":
        add(_beard_phrase(c, rng), plain=_by_role(c, "beard"))
    elif c.sex == "man":
        add(_CLEAN_SHAVEN[rng.integers(2)], plain=True)
    if c.eyewear != "sunglasses":
        add(f"with {c.eye_colour} eyes", plain=c.eye_colour == "brown" or _by_role(c, "eye_colour"), chance=0.85)
    if c.lips:
        add(f"with {c.lips} lips", plain=_by_role(c, "lips"))
    if c.headgear != "none":
        by_role = _by_role(c, "headgear")
        colour = f"{c.headgear_colour} " if rng.random() < (0.5 if by_role else 0.95) else ""
        add(("wearing " if rng.random() < 0.4 else "with ") + _article(f"{colour}{c.headgear}"), plain=by_role)
    elif rng.random() < 0.04:
        out.append("without a hat")
    if c.eyewear != "none":
        colour = f"{c.eyewear_colour} " if rng.random() < (0.4 if c.eyewear_colour == "black" else 0.95) else ""
        thing = f"{colour}{c.eyewear}"
        phrase = "wearing " + (thing if c.eyewear.endswith("glasses") else _article(thing))
        add(phrase, plain=_by_role(c, "eyewear") and _by_role(c, "eyewear_colour"))
    elif rng.random() < 0.04:
        out.append("without glasses")
    if c.ears == "pointed":
        add("with pointed ears", plain=_by_role(c, "ears"))
    if c.horns:
        add("with horns", plain=_by_role(c, "horns"))
    if c.earrings:
        add("with earrings", plain=False)
    if c.freckles and not c.role:
        add("with freckles", plain=False)
    if c.red_nose:
        add("with a red nose", plain=True)
    if c.age == "old":
        add("with wrinkles", plain=True, chance=0.15)
    if c.makeup == "skull":
        add("with skull makeup", plain=True)
    return out


def _usual_hair(c: Character) -> str:
    return "short" if c.sex == "man" else "long"


def _usual_hair_colour(c: Character) -> bool:
    usual = ("grey", "white") if c.age == "old" else ("brown", "black")
    return c.hair_colour in usual or _by_role(c, "hair_colour")


def _hair_phrase(c: Character, rng: np.random.Generator) -> str:
    colour = f"{c.hair_colour} " if rng.random() < (0.7 if _usual_hair_colour(c) else 0.97) else ""
    if c.hair in ("afro", "mohawk", "ponytail", "bun"):
        return "with " + _article(f"{colour}{c.hair}") if rng.random() < 0.8 else f"with {colour}{c.hair} hair"
    if c.hair == "buzz":
        return "with " + _article(f"{colour}buzz cut")
    style = f"{c.hair} " if rng.random() < (0.5 if c.hair == _usual_hair(c) else 0.9) else ""
    order = f"{style}{colour}" if rng.random() < 0.8 else f"{colour}{style}"
    return f"with {order}hair"


def _beard_phrase(c: Character, rng: np.random.Generator) -> str:
    colour = f"{c.beard_colour} " if rng.random() < (0.8 if c.beard_colour == c.hair_colour else 0.97) else ""
    if c.beard in ("short", "long"):
        length = f"{c.beard} " if rng.random() < 0.6 else ""
        return "with " + _article(f"{length}{colour}beard")
    if c.beard == "stubble":
        return f"with {colour}stubble"
    return "with " + _article(f"{colour}{c.beard}")


def _bare(phrase: str) -> str:
    for start in ("with ", "wearing "):
        phrase = phrase.removeprefix(start)
    return phrase


def _joined(phrases: list[str], rng: np.random.Generator) -> str:
    """Phrases behind the noun: with a hat and blue eyes, wearing glasses."""
    with_, others = [p for p in phrases if p.startswith("with ")], [p for p in phrases if not p.startswith("with ")]
    if rng.random() < 0.5:
        with_ = with_[:1] + [_bare(phrase) for phrase in with_[1:]]
    groups = [_listed(with_, rng), _listed(others, rng)]
    groups = [group for group in groups if group]
    if rng.random() < 0.5:
        groups.reverse()
    joint = ", " if rng.random() < 0.4 else " "
    return "".join((joint if not index or rng.random() < 0.5 else " and ") + g for index, g in enumerate(groups))


def _listed(items: list[str], rng: np.random.Generator) -> str:
    if len(items) < 2:
        return "".join(items)
    last = " and " if rng.random() < 0.8 else ", "
    return ", ".join(items[:-1]) + last + items[-1]
