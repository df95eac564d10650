"""FramePack's grid: a section is 9 latent frames, 36 new frames; a shot has one frame more, its start image."""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

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


def snap(seconds: Sequence[float], fps: int) -> list[int]:
    """Sections per scene: *ends* snap to the grid, half up, in exact decimals, so rounding never accumulates."""
    total, before, counts = Decimal(0), 0, []
    for asked in seconds:
        total += Decimal(repr(asked))
        end = int((total * fps / SECTION_FRAMES).quantize(Decimal(1), rounding=ROUND_HALF_UP))
        counts.append(end - before)
        before = end
    return counts


def nearest_bucket(width: int, height: int) -> Size:
    """The 640 bucket whose aspect is nearest to the image's; of two as near, as a square has, the later one."""
    bucket = min(reversed(BUCKETS_640), key=lambda b: abs(height * b[1] - width * b[0]))
    return bucket[1], bucket[0]
