"""FramePack's grid: a section is 9 latent frames, 36 new frames; a shot has one frame more, its start image."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

Size = tuple[int, int]  # width, height px
SECTION_LATENTS = 9  # latent frames of a section
LATENT_FRAMES = 4  # new frames per latent frame
SECTION_FRAMES = SECTION_LATENTS * LATENT_FRAMES
MOST_SECTIONS = 3000

# Height and width in px; lllyasviel/FramePack, diffusers_helper/bucket_tools.py, resolution 640
BUCKETS_640 = (
    (416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640),
    (640, 608), (672, 576), (704, 544), (768, 512), (832, 480), (864, 448), (960, 416),
)  # fmt: skip


def snap(shots: Sequence[Sequence[float]], fps: Fraction) -> list[list[int]]:
    """Sections of each scene, shot by shot, from the seconds that the scenes ask for; exact, half up.

    Every scene's last frame is the one nearest to the scene's end in the film that the grid of its shot reaches: a
    shot's frames are its start image and 36 a section. Rounding is carried across scenes and cuts, so the end of a
    scene is never more than half a section off, unless a scene before it gets no section.
    """
    return [[count for count, _ in scenes] for scenes in _walk(shots, fps, lengthen=False)]


def fitting_seconds(shots: Sequence[Sequence[float]], fps: Fraction) -> list[list[float]]:
    """The seconds of every scene, those lengthened that would get no section; up to a hundredth of a second."""
    return [[float(seconds) for _, seconds in scenes] for scenes in _walk(shots, fps, lengthen=True)]


def _walk(shots: Sequence[Sequence[float]], fps: Fraction, *, lengthen: bool) -> Iterator[list[tuple[int, Fraction]]]:
    """(sections, seconds) of the scenes of each shot."""
    asked, first = Fraction(0), 0  # seconds of film, and frame number, at which the shot begins
    for shot in shots:
        scenes, before = [], 0
        for written in shot:
            seconds = Fraction(repr(written))
            if lengthen:  # until its end is half a section behind the last frame that there is
                needed = (first + (before + Fraction(1, 2)) * SECTION_FRAMES) / fps - asked
                seconds = max(seconds, Fraction(math.ceil(needed * 100), 100))
            asked += seconds
            end = max(before, math.floor((asked * fps - first) / SECTION_FRAMES + Fraction(1, 2)))
            scenes.append((end - before, seconds))
            before = end
        first += SECTION_FRAMES * before + 1
        yield scenes


def nearest_bucket(width: int, height: int) -> Size:
    """The 640 bucket whose aspect is nearest to the image's; of two as near, as a square has, the later one."""
    bucket = min(reversed(BUCKETS_640), key=lambda b: abs(height * b[1] - width * b[0]))
    return bucket[1], bucket[0]
