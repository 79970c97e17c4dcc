"""Seeded grammars: each draws texts to learn from, and prompts with what may come next.

A prompt has a twin of the same length, in which one thing is changed so that what came next no longer follows.

One prompt in five of `ioi` and `greater-than`, of which there are about a million and eight thousand, is held out from
training, and so is one story in five, by who plays with what and where. `induction` and `docstring` have billions of
prompts, of which two draws are hardly ever alike, so that none are held out.

- `induction`: symbols that are said again in the same order (Olsson et al. 2022, arXiv 2209.11895).
- `ioi`: indirect object identification (Wang et al. 2023, arXiv 2211.00593), in both orders of names, ABBA and BABA.
- `docstring`: arguments of a function, named again in its docstring (Heimersheim & Janiak 2023).
- `greater-than`: a year after another one (Hanna et al. 2023, arXiv 2305.00586).
- `stories`: a few sentences on who does what where, of a vocabulary of some two hundred words.
- `mixed`: a text of induction, ioi, docstring or greater-than, so that one model does all of them.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from rl_interp.core.envs.text import words as w

Split = Literal["training", "held-out"]
START = "<start>"
"""The word before every text."""
SYMBOLS = tuple(f"s{number}" for number in range(48))
_HELD_OUT = 5
"""One in so many is held out."""


@dataclass(frozen=True)
class Prompt:
    """A beginning and what may follow."""

    words: tuple[str, ...]
    right: tuple[str, ...]
    """Words that may come next, the first of which does in the text that is learned from."""
    wrong: tuple[str, ...]
    """Words that a model might mistake for right: in `ioi` the subject."""
    twin: tuple[str, ...]
    """The words with one thing changed, as many."""
    labels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Grammar:
    """A task: `prompt(rng, split)` draws one, `text(rng, split)` a whole text."""

    vocabulary: tuple[str, ...]
    length: int
    """Words of the longest text, with the first, `START`."""
    prompt: Callable[[np.random.Generator, Split], Prompt]
    text: Callable[[np.random.Generator, Split], Sequence[str]]
    concepts: Mapping[str, str] = field(default_factory=dict)
    """Names of a prompt's labels, which are yes or no, and what they mean."""


def _belongs(said: Sequence[str], split: Split) -> bool:
    """Whether texts of the split may say so: a hash decides, so that those of the other do not."""
    return (zlib.crc32(" ".join(said).encode()) % _HELD_OUT == 0) == (split == "held-out")


def _apart(draw: Callable[[np.random.Generator], Prompt]) -> Callable[[np.random.Generator, Split], Prompt]:
    """Prompts that are drawn again until one belongs to the split."""

    def prompt(rng: np.random.Generator, split: Split) -> Prompt:
        while True:
            drawn = draw(rng)
            if _belongs(drawn.words, split):
                return drawn

    return prompt


# -- symbols said again ----------------------------------------------------------------------------

_PERIODS = (6, 12)
_SAID = 32


def _repeated(rng: np.random.Generator, split: Split) -> list[str]:
    period = int(rng.integers(_PERIODS[0], _PERIODS[1] + 1))
    cycle = rng.choice(len(SYMBOLS), period, replace=False)
    return [START, *(SYMBOLS[cycle[place % period]] for place in range(_SAID - 1))]


def _induction(rng: np.random.Generator, split: Split) -> Prompt:
    text = _repeated(rng, split)
    period = text.index(text[1], 2) - 1
    end = int(rng.integers(period + 2, 2 * period + 1))  # within the second time, after its first symbol
    words, right = text[:end], text[end]
    others = [symbol for symbol in SYMBOLS if symbol not in text]
    twin = [others[0] if word == right else word for word in words]
    return Prompt(tuple(words), (right,), (), tuple(twin))


# -- indirect objects ------------------------------------------------------------------------------

_SCENES = (
    "Then , {a} and {b} went to the {place} . {s} gave a {thing} to",
    "When {a} and {b} got a {thing} at the {place} , {s} decided to give it to",
    "After {a} and {b} went to the {place} , {s} gave a {thing} to",
    "Then , {a} and {b} had a long day at the {place} . {s} handed the {thing} to",
)


@_apart
def _ioi(rng: np.random.Generator) -> Prompt:
    subject, indirect, other = (w.NAMES[i] for i in rng.choice(len(w.NAMES), 3, replace=False))
    subject_first = bool(rng.integers(2))
    a, b = (subject, indirect) if subject_first else (indirect, subject)
    scene = _SCENES[rng.integers(len(_SCENES))]
    said = {
        "a": a,
        "b": b,
        "place": w.PLACES[rng.integers(len(w.PLACES))],
        "thing": w.THINGS[rng.integers(len(w.THINGS))],
    }
    words, twin = ((START, *scene.format(s=who, **said).split()) for who in (subject, other))
    return Prompt(words, (indirect,), (subject,), twin, {"subject_first": float(subject_first)})


# -- docstrings ------------------------------------------------------------------------------------


def _docstring(rng: np.random.Generator, split: Split) -> Prompt:
    *names, other = (w.ARGUMENTS[i] for i in rng.choice(len(w.ARGUMENTS), 7, replace=False))
    said = [w.DESCRIPTIONS[i] for i in rng.choice(len(w.DESCRIPTIONS), 2, replace=False)]
    name, right = w.FUNCTIONS[rng.integers(len(w.FUNCTIONS))], names[4]

    def written(arguments: Sequence[str]) -> tuple[str, ...]:
        head = ["def", name, "(", "self", *(word for each in arguments for word in (",", each)), ")", ":"]
        lines = [word for i in (0, 1) for word in (":param", names[2 + i], ":", said[i])]
        return (START, *head, '"""', *lines, ":param")

    wrong = (names[0], names[1], names[5])
    return Prompt(written(names), (right,), wrong, written([*names[:4], other, names[5]]))


# -- years -----------------------------------------------------------------------------------------

_YEARS = tuple(f"{number:02d}" for number in range(100))


@_apart
def _greater_than(rng: np.random.Generator) -> Prompt:
    event, century, year = int(rng.integers(len(w.EVENTS))), rng.integers(11, 18), int(rng.integers(2, 98))
    later = [_YEARS[number] for number in range(year + 1, 100)]
    drawn = later.pop(int(rng.integers(len(later))))

    def written(start: str) -> tuple[str, ...]:
        text = f"The {w.EVENTS[event]} lasted from the year {century} {start} to the year {century}"
        return (START, *text.split())

    return Prompt(written(_YEARS[year]), (drawn, *later), _YEARS[: year + 1], written("01"))


# -- stories ---------------------------------------------------------------------------------------


def _story(rng: np.random.Generator, split: Split) -> list[str]:
    opening, rest = _told(rng, split)
    return [*opening, *rest]


def _told(rng: np.random.Generator, split: Split) -> tuple[list[str], list[str]]:
    """How a story opens, which says who plays with what and where, and how it goes on."""

    def any_of(words: Sequence[str]) -> str:
        return words[int(rng.integers(len(words)))]

    while True:
        who, spot, toy = any_of(w.PEOPLE), any_of(w.SPOTS), any_of(w.TOYS)
        if _belongs((who, spot, toy), split):
            break
    animal, color, size = any_of(w.ANIMALS), any_of(w.COLORS), any_of(w.SIZES)
    food, mood = any_of(w.FOODS), any_of(w.MOODS)
    friend = any_of([name for name in w.PEOPLE if name != who])
    begins = (
        f"One {any_of(w.WEATHER)} day {who} went to the {spot} with a {color} {toy} .",
        f"{who} had a {size} {animal} . They lived near the {spot} . The {animal} liked the {color} {toy} .",
        f"Once there was a {size} {animal} in the {spot} . It had a {color} {toy} and a friend named {who} .",
    )
    middles = (
        f"Then {who} and {friend} ate {food} . {who} gave the {toy} to {friend} .",
        f"The {animal} took the {toy} and ran away . {who} was {mood} and looked for the {color} {toy} .",
        f"{friend} saw the {size} {animal} and asked for some {food} . The {animal} said no .",
        f"{who} lost the {toy} in the {spot} . {friend} found the {color} {toy} .",
    )
    ends = (
        f"They were all {any_of(w.MOODS)} and went home from the {spot} .",
        f"At night {who} slept and the {animal} slept too .",
        f"So {who} and the {animal} became friends .",
    )
    chosen = sorted(rng.choice(len(middles), 2, replace=False).tolist())
    return [START, *any_of(begins).split()], " ".join([*(middles[i] for i in chosen), any_of(ends)]).split()


def _next_word(rng: np.random.Generator, split: Split) -> Prompt:
    opening, rest = _told(rng, split)
    end = int(rng.integers(len(rest)))  # not within the opening, which may begin like one of the other split
    words, right = [*opening, *rest[:end]], rest[end]
    present = [word for word in dict.fromkeys(words) if word in w.PEOPLE]
    swap = next(name for name in rng.permutation(w.PEOPLE).tolist() if name not in present)
    twin = [swap if word in present[:1] else word for word in words]
    return Prompt(tuple(words), (right,), (), tuple(twin))


def _one_of(tasks: Mapping[str, Grammar]) -> Grammar:
    """Texts of several tasks, each as often; a prompt's labels say which it is of."""

    def drawn(rng: np.random.Generator) -> str:
        return list(tasks)[int(rng.integers(len(tasks)))]

    def prompt(rng: np.random.Generator, split: Split) -> Prompt:
        name = drawn(rng)
        found = tasks[name].prompt(rng, split)
        return replace(found, labels={each: float(each == name) for each in tasks})

    def text(rng: np.random.Generator, split: Split) -> Sequence[str]:
        return tasks[drawn(rng)].text(rng, split)

    words = _vocabulary(*(grammar.vocabulary for grammar in tasks.values()))
    concepts = {name: f"the text is of {name}" for name in tasks}
    return Grammar(words, max(grammar.length for grammar in tasks.values()), prompt, text, concepts)


def _completed(
    prompt: Callable[[np.random.Generator, Split], Prompt],
) -> Callable[[np.random.Generator, Split], Sequence[str]]:
    """Texts that are prompts with what comes next."""

    def text(rng: np.random.Generator, split: Split) -> Sequence[str]:
        drawn = prompt(rng, split)
        return [*drawn.words, drawn.right[0]]

    return text


def _vocabulary(*groups: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([START, *(word for group in groups for word in group)]))


def _plain(*templates: str) -> list[str]:
    """The words of templates that stand for themselves."""
    return [word for template in templates for word in template.split() if "{" not in word]


_STORY_WORDS = _plain(
    "One day went to the with a . had They lived near The liked Once there was in It and friend named Then ate gave",
    "took ran away looked for saw asked some said no lost found were all home from At night slept too So became",
    "friends",
)
GRAMMARS: dict[str, Grammar] = {
    "induction": Grammar(_vocabulary(SYMBOLS), _SAID, _induction, _repeated),
    "ioi": Grammar(
        _vocabulary(_plain(*_SCENES), w.NAMES, w.PLACES, w.THINGS), 20, _ioi, _completed(_ioi),
        {"subject_first": "the subject is named before the indirect object (BABA, else ABBA)"},
    ),
    "docstring": Grammar(
        _vocabulary(_plain('def ( self , ) : """ :param'), w.ARGUMENTS, w.DESCRIPTIONS, w.FUNCTIONS), 30, _docstring,
        _completed(_docstring),
    ),
    "greater-than": Grammar(
        _vocabulary(_plain("The lasted from the year to"), w.EVENTS, _YEARS), 14, _greater_than,
        _completed(_greater_than),
    ),
    "stories": Grammar(
        _vocabulary(
            _STORY_WORDS, w.PEOPLE, w.ANIMALS, w.SPOTS, w.TOYS, w.COLORS, w.SIZES, w.FOODS, w.MOODS, w.WEATHER
        ),
        68, _next_word, _story,
    ),
}  # fmt: skip
"""By the task's name."""
GRAMMARS["mixed"] = _one_of({name: GRAMMARS[name] for name in ("induction", "ioi", "docstring", "greater-than")})
