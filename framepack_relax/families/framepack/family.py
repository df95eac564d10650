"""FramePack without torch: 9 latent frames, 36 new frames a section; one frame more a shot, its start image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from ...errors import Problem
from ...relax.effects import EFFECTS
from ...storyboard import Storyboard
from ...storyboard.fields import Decoding, Order
from ...storyboard.schema import FramePackBlock
from ..base import CONTEXT, Context, GuidanceTerm, Role, Size, TimeGrid
from ..configs import FramePackTransformer, PartKinds, ProcessorConfig, Sidecar, SiglipFields
from ..flow import FlowShift, Levels, sigma_table
from ..hunyuan_video.family import HunyuanVideo
from .history import HISTORY, SECTION_LATENTS, HistorySlots, slots

LATENT_FRAMES = 4  # new frames per latent frame
SECTION_FRAMES = SECTION_LATENTS * LATENT_FRAMES
MOST_SHIFT = 7.0  # FramePack caps mu at ln 7

# Height and width in px; lllyasviel/FramePack, diffusers_helper/bucket_tools.py, resolution 640
BUCKETS_640 = (
    (416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640),
    (640, 608), (672, 576), (704, 544), (768, 512), (832, 480), (864, 448), (960, 416),
)  # fmt: skip


class FramePackSidecar(Sidecar):
    """What it must say: an F1 and an original checkpoint cannot be told apart without it."""

    order: Order
    embedded_guidance: bool


DYNAMIC = FlowShift(use_dynamic_shifting=True)


@dataclass(frozen=True, kw_only=True)
class FramePack(HunyuanVideo):
    """FramePack-F1 (forward order), the original FramePack (inverted), and models of their layout.

    `size` None means the 640 bucket nearest to the start image; `drift` is the strength of `drift: adain`.
    """

    order: Order
    size: Size | None = None
    fps: float = 30
    shift: FlowShift = DYNAMIC
    drift: float = 0.0
    decoder: Decoding | None = None

    kind = "framepack"
    masks = False  # its text is cut to its length
    grid = TimeGrid(unit_frames=SECTION_FRAMES, unit_latents=SECTION_LATENTS, lead_latents=0)
    effects = frozenset(EFFECTS)
    scopes = ("section", "history", "reference", "all")
    samplers = ("unipc", "euler")
    image = "required"
    renderer = "framepack.backend:FramePackBackend"
    sidecar = FramePackSidecar
    parts: ClassVar[PartKinds] = {
        **HunyuanVideo.parts,
        "transformer": FramePackTransformer,
        "image_encoder": SiglipFields,
        "feature_extractor": ProcessorConfig,
    }

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        return *super().terms, CONTEXT

    @property
    def options(self) -> Mapping[str, Any]:
        return {"order": self.order, "adain": self.drift}

    @property
    def decode(self) -> str:
        return self.decoder or ("stream" if self.order == "forward" else "blend")

    def configured(self, story: Storyboard) -> Self:
        said = story.framepack or FramePackBlock()
        return replace(self, order=said.order or self.order, drift=said.adain, decoder=said.decode)

    def problems(self, story: Storyboard) -> Iterator[Problem]:
        if self.decoder == "stream" and self.order == "inverted":
            message = "stream needs forward order, and this film is rendered from its end; remove the line"
            yield Problem(path="framepack.decode", message=message)
        if self.decoder == "blend" and story.before:
            yield Problem(path="framepack.decode", message="blend cannot go on from a film; remove the line")

    def notes(self, story: Storyboard, shots: Sequence[tuple[float, int]]) -> Iterator[tuple[str, str]]:
        """Shots that FramePack's programs, which round half to even at 30 frames a second, give another length."""
        yield from super().notes(story, shots)
        for number, (asked, sections) in enumerate(shots, 1):
            theirs = max(1, round(asked * 30 / SECTION_FRAMES))
            if story.noise == "framepack" and theirs != sections:
                made = f"FramePack's programs make {theirs} sections, not {sections}"
                yield f"shot {number}", f"of {asked:g} s {made}"

    def own_size(self, image: Size) -> Size:
        return self.size or nearest_bucket(*image)

    def levels(self, steps: int, size: Size, sampler: str) -> Levels:
        tokens = SECTION_LATENTS * (size[1] // 8) * (size[0] // 8) / 4  # pipeline_hunyuan_video_framepack.py
        return sigma_table(steps, self.shift, self.shift.factor(tokens, MOST_SHIFT), sampler=sampler)

    @property
    def anchors(self) -> frozenset[Role]:
        """In inverted order the past is the future, and a shot's last section may see what comes after it."""
        return frozenset({"end"} if self.order == "inverted" else ())

    @property
    def past_frames(self) -> Sequence[int]:
        """As many as fill the slots, and the one before them, which stands for the start image."""
        return range(1 + LATENT_FRAMES * HISTORY, 1, -LATENT_FRAMES) if self.order == "forward" else ()

    def render_order(self, sections: int) -> Sequence[int]:
        return range(sections) if self.order == "forward" else range(sections)[::-1]

    def context(self, place: int, sections: int, *, film: bool = False) -> HistorySlots:
        return slots(self.order, place, sections, film=film)

    def has_past(self, context: Context, *, image: bool) -> bool:
        assert isinstance(context, HistorySlots)
        return not context.initial or any((p or 0) < 0 for p in context.mid)


def nearest_bucket(width: int, height: int) -> Size:
    """The 640 bucket whose aspect is nearest to the image's; of two as near, as a square has, the later one."""
    bucket = min(reversed(BUCKETS_640), key=lambda b: abs(height * b[1] - width * b[0]))
    return bucket[1], bucket[0]
