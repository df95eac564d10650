"""How much a prompt asks for, by a lexicon of motion in English, Japanese and Chinese. Every number explains itself.

`lexicon.yaml` holds the words. The longest that fits at a place counts there, and the strongest motion of a prompt
counts of all. An adverb changes the motion next to it, a negated motion is calm, what a camera does is no motion.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from ..storyboard import Scene, Storyboard
from ..storyboard.reader import LOADER

CALM, MILD = 0.1, 0.3  # of a negated motion; of a prompt whose words are not known
STILL = 0.2  # up to here adverbs and negations change nothing: who sleeps deeply does not move
UNKNOWN = "no word of motion is known"
REACH = 4  # words, or signs of Japanese and Chinese, between a negation, or a camera, and what it belongs to
CLAUSE = 20  # an adverb is as many words further away in the next clause
LEADS = re.compile(r"\b(do|does|did|doing|performs?)\s+(an?\s+)?$", re.IGNORECASE)  # to what happens
MOST_SHOWN = 60  # signs of a reason
KANA, HAN, STOPS = "ぁ-ヿ", "々㐀-鿿", ",.;:!?、。…—()"
LETTERS = rf"[^\W\d_{KANA}{HAN}]+"
WORD = re.compile(rf"[{KANA}{HAN}]|{LETTERS}(?:['-]{LETTERS})*|[{STOPS}]")
SHORT = re.compile("[^aeiou]*[aeiou][^aeiouwxy]")  # English verbs that double their last letter
ROWS = (
    *("わいうえおっ", "かきくけこい", "がぎぐげごい", "さしすせそし", "たちつてとっ"),
    *("なにぬねのん", "ばびぶべぼん", "まみむめもん", "らりるれろっ"),
)
ENDINGS = {row[2]: row for row in ROWS}  # of Japanese verbs, by the one of the dictionary
ONE_ROW = re.compile(r"(.*[いきぎしちにびみりえけげせてねべめれ]|見|寝|出)る")  # verbs that just drop the last sign


class Entry(NamedTuple):
    """What a phrase is in the lexicon; only kinds `motion` and `hurried` have a value."""

    kind: str
    value: float | None = None


class Found(NamedTuple):
    """An entry in a prompt: its words, from `first` until before `end`, its signs, its clause by number."""

    entry: Entry
    first: int
    end: int
    begins: int
    stops: int
    clause: int

    def reaches(self, other: "Found") -> bool:
        return self.clause == other.clause and other.first - self.end <= REACH


@dataclass(frozen=True)
class Motion:
    """How much happens, 0 calm .. 1 most dynamic, and the words that say so."""

    intensity: float
    reason: str

    def __str__(self) -> str:
        return f"{self.intensity:g}: {self.reason}"


@dataclass(frozen=True)
class Suggestion:
    """What the words of a scene's prompt ask for beside what the scene says: a number, `auto`, or nothing."""

    scene: str
    said: float | Literal["auto"] | None
    motion: Motion


@dataclass
class Act:
    """Something that happens, and all that is said of it. What a camera does has no value."""

    value: float | None
    said: list[Found]

    def distance(self, adverb: Found) -> tuple[int, bool]:
        """In words; of two as near the one that follows the adverb is nearer."""
        own = self.said[0]
        gap = max(adverb.first - own.end, own.first - adverb.end)
        return gap + CLAUSE * abs(adverb.clause - own.clause), adverb.first > own.first

    def hurry(self, adverb: Found) -> None:
        if self.value is not None and self.value > STILL and adverb.entry.value:
            self.value += adverb.entry.value * (1 - self.value if adverb.entry.value > 0 else self.value)
            self.said.append(adverb)

    def deny(self, *by: Found) -> None:
        if self.value is not None and self.value > STILL:
            self.value = CALM
            self.said += by


def intensity_of(scene: Scene) -> float:
    """The scene's own, or for `auto` what its prompt asks for."""
    return motion_of(scene.prompt).intensity if scene.intensity == "auto" else scene.intensity


def suggestions(story: Storyboard) -> list[Suggestion]:
    """One for each scene. The board's style counts in none: it says how all of them look."""
    said = [scene.intensity if "intensity" in scene.model_fields_set else None for scene in story.scenes]
    return [Suggestion(s.id, own, motion_of(s.prompt)) for s, own in zip(story.scenes, said, strict=True)]


@lru_cache(maxsize=4096)
def motion_of(prompt: str) -> Motion:
    """How much the subject of a prompt moves; 0.3 where no word of motion is known."""
    text = unicodedata.normalize("NFKC", prompt).replace("\u2019", "'")
    lexicon = _lexicon("ja" if re.search("[ぁ-ヺ]", text) else "zh" if re.search(f"[{HAN}]", text) else "en")
    found = list(lexicon.find(text))
    acts = list(_acts(found, text, lexicon))
    moving = [act for act in acts if (act.said[0].entry.value or 1.0) > STILL]
    for adverb in (item for item in found if item.entry.kind == "hurried" and moving):
        min(moving, key=lambda act: act.distance(adverb)).hurry(adverb)
    values = [(act.value, act) for act in acts if act.value is not None]
    if not values:
        return Motion(MILD, UNKNOWN)
    value, strongest = max(values, key=lambda pair: pair[0])
    return Motion(round(value, 2), lexicon.quote(text, strongest.said))


def _acts(found: list[Found], text: str, lexicon: "Lexicon") -> Iterator[Act]:
    """What happens, with its negations; two of them say yes, and one holds on after `or`."""
    negation = latest = camera = None
    for item in found:
        kind = item.entry.kind
        if kind == "negated":
            negation = None if negation and negation.reaches(item) else item
        elif kind == "also" and latest and latest.clause == item.clause:
            negation = latest._replace(end=item.end, clause=item.clause)
        elif kind == "camera":
            camera = item
        elif kind in ("motion", "of_camera"):
            act = Act(None if camera and camera.reaches(item) else item.entry.value, [item])
            latest = negation if negation and negation.reaches(item) else None
            if latest:
                act.deny(latest)
            elif after := lexicon.negated_after(text, item.stops):
                act.deny(item._replace(stops=after))
            negation = camera = None
            yield act


@dataclass(frozen=True)
class Lexicon:
    """The phrases of a language, each a row of words; `denies` is what negates a Japanese verb before it."""

    phrases: Mapping[tuple[str, ...], Entry]
    longest: int
    simplified: Mapping[int, int]
    denies: re.Pattern[str]

    def find(self, text: str) -> Iterator[Found]:
        """The longest entry at each place, from left to right."""
        spans = [found.span() for found in WORD.finditer(text)]
        words = [text[begins:stops].casefold().translate(self.simplified) for begins, stops in spans]
        at = clause = 0
        while at < len(words):
            ends = range(min(at + self.longest, len(words)), at, -1)
            end = next((end for end in ends if tuple(words[at:end]) in self.phrases), None)
            if end:
                entry = self.phrases[tuple(words[at:end])]
                clause += entry.kind == "breaks"
                yield Found(entry, at, end, spans[at][0], spans[end - 1][1], clause)
            at = end or at + 1

    def negated_after(self, text: str, place: int) -> int | None:
        """Where the ending of a verb ends that negates it; None for another ending."""
        found = (self.denies.match(text, begins) for begins in (place, place - 1))
        return next((match.end() for match in found if match), None)

    def quote(self, text: str, said: list[Found]) -> str:
        """The words of the prompt that say it: with what leads to them, and the endings of Japanese verbs."""
        begins, stops = min(item.begins for item in said), max(item.stops for item in said)
        stops = re.compile("[ぁ-ん]{0,3}").match(text, stops).end()  # type: ignore[union-attr]
        leads = LEADS.search(text, 0, begins)
        begins = leads.start() if leads else begins
        whole = " ".join(text[begins:stops].split())
        parts = sorted({(item.begins, item.stops) for item in said})
        return whole if len(whole) <= MOST_SHOWN else " .. ".join(text[begins:stops] for begins, stops in parts)


@lru_cache
def _lexicon(language: str) -> Lexicon:
    """That of a language; in a Japanese or Chinese prompt English words count, too."""
    data = yaml.load(Path(__file__).with_name("lexicon.yaml").read_bytes(), Loader=LOADER)
    inflected = {"en": _english(data["irregular"]), "ja": _japanese}
    phrases: dict[tuple[str, ...], Entry] = {(sign,): Entry("breaks") for sign in STOPS}
    for name in dict.fromkeys(("en", language)):
        phrases |= _phrases(data[name], inflected.get(name, lambda phrase: {phrase}))
    pairs = data["simplified"].split() if language == "zh" else ()
    return Lexicon(
        phrases=phrases,
        longest=max(map(len, phrases)),
        simplified={ord(traditional): ord(simplified) for traditional, simplified in pairs},
        denies=re.compile(data["negation"]),
    )


def _phrases(data: Mapping[str, Any], forms: Callable[[str], Iterable[str]]) -> dict[tuple[str, ...], Entry]:
    """By their words; where a phrase stands twice, what is said last holds."""
    made = {}
    for kind, of_kind in data.items():
        for value, texts in of_kind.items() if isinstance(of_kind, dict) else ((None, of_kind),):
            for phrase in filter(None, map(str.strip, texts.split(","))):
                for form in forms(phrase) if kind in ("motion", "of_camera") else (phrase,):
                    made[tuple(WORD.findall(form))] = Entry(kind, value)
    return made


def _english(irregular: str) -> Callable[[str], set[str]]:
    """What makes the forms of a phrase whose first word may be a verb; `irregular` lists verbs with their others."""
    others = {verb: more for verb, *more in map(str.split, irregular.split(","))}

    def forms(phrase: str) -> set[str]:
        verb, space, rest = phrase.partition(" ")
        stem = verb + verb[-1] if SHORT.fullmatch(verb) else verb.removesuffix("e")
        made = {verb, verb + "s", verb + "es", stem + "ed", stem + "ing", *others.get(verb, ())}
        made |= {verb[:-1] + "ies", verb[:-1] + "ied"} if verb.endswith("y") else set()
        return {form + space + rest for form in made}

    return forms


def _japanese(phrase: str) -> set[str]:
    """The phrase and, where it ends as verbs do, that with their other endings."""
    if one := ONE_ROW.fullmatch(phrase):
        return {phrase, one[1]} if len(one[1]) > 1 else {phrase, *(one[1] + sign for sign in "てたなずまよろらつ")}
    return {phrase, *(phrase[:-1] + sign for sign in ENDINGS.get(phrase[-1], ""))}
