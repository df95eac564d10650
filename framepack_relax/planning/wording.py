"""How sections read their prompts: mixed with a neighbour's around a border, some words attended to more."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from ..errors import Problem
from ..relax.effects import WordGain
from ..storyboard import Scene, Storyboard
from ..storyboard.messages import printable
from ..storyboard.schema import Blend
from ..storyboard.words import find_words, words_of
from .renderplan import Blended


def plan_blends(story: Storyboard, counts: Sequence[int]) -> Mapping[tuple[int, int], Blended]:
    """What each section reads besides its own prompt, by its scene and its place in that; `counts` are of sections.

    `blend: n` mixes n sections, half of them on each side of the border. The new prompt's weight rises there in equal
    steps, 1/(n + 1) to n/(n + 1), from 0 to 1 at the sections outside. What both scenes say alike is not mixed.
    """
    made = {}
    for index, scene in enumerate(story.scenes):
        half, before = _half(scene), story.scenes[index - 1]
        old, new = ((story.prompt_of(each), story.negative_of(each)) for each in (before, scene))
        for nth in range(half if old != new else 0):
            weight = (half - nth) / (2 * half + 1)
            sides = {(index - 1, counts[index - 1] - 1 - nth): new, (index, nth): old}
            for place, (prompt, negative) in sides.items():
                made[place] = Blended(prompt=prompt, negative_prompt=negative, weight=weight)
    return made


def _half(scene: Scene) -> int:
    """Sections that a blend takes of the scene, at its beginning, and of the one before it."""
    return scene.transition.blend // 2 if isinstance(scene.transition, Blend) else 0


def wording_problems(story: Storyboard, counts: Sequence[int]) -> Iterator[Problem]:
    """Blends longer than their scenes, and words that are not in their prompts."""
    facts: dict[int, list[str]] = {}  # by the scene whose blend it is
    for index, scene in enumerate(story.scenes):
        after = _half(story.scenes[index + 1]) if index + 1 < len(story.scenes) else 0
        taken, has = _half(scene) + after, counts[index]
        if taken > has > 0:
            at = index + (after > _half(scene))
            facts.setdefault(at, []).append(f"of scene {scene.id} blends take {taken} sections, and it has {has}")
        prompt = story.prompt_of(scene)
        for nth, emphasis in enumerate(scene.emphasis or ()):
            if not find_words(prompt, emphasis.words):
                near = get_close_matches(emphasis.words, words_of(prompt), n=1, cutoff=0.6)
                cure = f"did you mean {near[0]!r}?" if near else "write words as they stand in it"
                message = f"{printable(emphasis.words)!r} is not in the prompt; {cure}"
                yield Problem(path=f"scenes[{index}].emphasis[{nth}].words", message=message)
    for at, said in facts.items():
        message = f"{'; '.join(said)}; make it longer, or blend fewer"
        yield Problem(path=f"scenes[{at}].transition.blend", message=message)


def word_gains(scene: Scene) -> tuple[WordGain, ...]:
    """Those of a scene's emphasis that do something."""
    return tuple(WordGain(words=one.words, gain=one.gain) for one in scene.emphasis or () if one.gain != 1)
