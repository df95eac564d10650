"""Draws the start images of the shipped storyboards and sweeps: python scripts/draw_start_images.py

The sweep `headline` begins with figures in places that were held out from training, another position for each seed; its
starts and scenes are written anew from the world of the packaged weights.
"""

from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from training.drawing import draw
from training.world import ACTION_WORDS, FIRST, PLACE_WORDS, Film, Mix, World, act


def puppet(colour: str, place: str, seed: int, world: World = FIRST, doing: str = "stand") -> Image.Image:
    """The first frame of a film in which nothing has happened yet, or what it does a second later."""
    count = 1 if doing == "stand" else 31
    rng, starts = np.random.default_rng(seed), None if count == 1 else [[0]]
    pose, segments = act(rng, [(doing, count)], Mix(), starts=starts, world=world)
    film = Film(world=world, colour=colour, place=place, pose=pose, segments=segments)
    frame = draw([(film, np.array([count - 1]))])[0]
    return Image.fromarray(((frame + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def said(colour: str, place: str) -> str:
    """Of a start in a sweep's file."""
    return f"who: {'an' if colour[0] in 'aeiou' else 'a'} {colour} figure, where: {PLACE_WORDS[place]}"


def headline(specs: Path, world: World = FIRST) -> None:
    """The start images of the headline sweep, one for each of its seeds, and in its file its starts and scenes.

    After those come all other figures and places, with which no film begins: identity tells a film's own from them.
    """
    lines, file = ["starts:"], specs / "headline.yaml"
    (specs / "headline").mkdir(exist_ok=True)
    for number, (colour, place) in zip(range(HEADLINE), cycle(sorted(world.held_out)), strict=False):
        puppet(colour, place, 1000 + number, world).save(specs / "headline" / f"{number:02}.png")
        lines.append(f"  - {{image: headline/{number:02}.png, {said(colour, place)}}}")
    lines += [f"  - {{{said(*pair)}}}" for pair in world.pairs(held_out=False)]
    lines.append("scenes:")
    for action, (words, *_) in ((action, ACTION_WORDS[action]) for action in world.actions):
        lines.append(f'  - {{id: {action}, prompt: "{{who}} {words} {{where}}", words: {words}, target: {action}}}')
    before, _, rest = file.read_text(encoding="utf8").partition("starts:")
    file.write_text(before + "\n".join(lines) + "\narms:" + rest.partition("\narms:")[2], encoding="utf8")


def rooftop() -> Image.Image:
    """A figure on a roof before a city at dusk, for the storyboard of the 13B model."""
    width, height = 832, 480
    rows = np.linspace(0, 1, height)[:, None, None]
    sky = (1 - rows) * np.array([44, 40, 84]) + rows * np.array([236, 150, 110])
    image = Image.fromarray(np.broadcast_to(sky, (height, width, 3)).astype(np.uint8))
    pen, rng = ImageDraw.Draw(image), np.random.default_rng(4)
    for left in range(-20, width, 62):
        top = int(rng.integers(190, 300))
        pen.rectangle([left, top, left + 54, height], fill=(40, 38, 66))
        for x in range(left + 8, left + 48, 14):
            for y in range(top + 10, 350, 18):
                if rng.random() < 0.5:
                    pen.rectangle([x, y, x + 5, y + 8], fill=(250, 214, 130))
    pen.rectangle([0, 356, width, height], fill=(70, 62, 72))
    pen.rectangle([0, 356, width, 364], fill=(104, 92, 100))
    x, ground, skin = 416, 440, (236, 190, 150)
    for leg in (-1, 1):
        pen.line([(x, ground - 74), (x + 13 * leg, ground)], fill=(28, 32, 48), width=16)
        pen.line([(x, ground - 128), (x + 30 * leg, ground - 76)], fill=(176, 54, 50), width=12)
    pen.rounded_rectangle([x - 19, ground - 138, x + 19, ground - 68], 10, fill=(190, 60, 54))
    pen.ellipse([x - 17, ground - 178, x + 17, ground - 142], fill=skin)
    pen.pieslice([x - 19, ground - 182, x + 19, ground - 144], 180, 360, fill=(50, 34, 30))
    return image


STORYBOARDS = {"red-beach": 1, "blue-field": 3, "green-night": 5}  # seeds
SWEEPS = ("red-beach", "blue-field", "green-night", "yellow-field", "purple-night", "red-field", "blue-beach",
          "yellow-night")  # fmt: skip
HEADLINE = 48  # seeds

if __name__ == "__main__":
    root = Path(__file__).parents[1]
    for name, seed in STORYBOARDS.items():
        puppet(*name.split("-"), seed).save(root / "storyboards" / f"{name}.png")
    puppet("red", "beach", STORYBOARDS["red-beach"], doing="walk").save(root / "storyboards" / "red-beach-walk.png")
    rooftop().save(root / "storyboards" / "rooftop.png")
    for number, name in enumerate(SWEEPS):
        puppet(*name.split("-"), 100 + number).save(root / "framepack_relax" / "evaluate" / "specs" / f"{name}.png")
    headline(root / "framepack_relax" / "evaluate" / "specs")
