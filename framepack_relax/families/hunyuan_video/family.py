"""HunyuanVideo without torch: text to one clip of 4k + 1 frames, without a past."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from ...relax.effects import EFFECTS
from ..base import Family, GuidanceTerm, Size, TimeGrid
from ..configs import ClipFields, Config, HunyuanVideoTransformer, HunyuanVideoVae, LlamaFields, PartKinds
from ..flow import FlowShift, Levels, sigma_table
from ..sidecar import Sidecar

if TYPE_CHECKING:
    from .backend import HunyuanVideoBackend

LONGEST = 129  # frames of a clip
SEVEN = FlowShift(dynamic=False, shift=7.0)
UNIT = 4  # frames a latent frame gives, but the first


@dataclass(frozen=True, kw_only=True)
class HunyuanVideo(Family):
    """Tencent's text-to-video model, on which the paper was tried: 13B, guidance distilled at scale 6."""

    size: Size | None = (1280, 720)
    fps: float = 24
    embedded: float = 6.0
    shift: FlowShift = SEVEN

    kind: ClassVar[str] = "hunyuanvideo"
    grid: ClassVar[TimeGrid] = TimeGrid(unit_frames=UNIT, unit_latents=1, most_units=LONGEST // UNIT, past=False)
    effects: ClassVar[frozenset[str]] = frozenset(EFFECTS[:1])
    image: ClassVar[Literal["required", "optional", "refused"]] = "refused"
    sidecar: ClassVar[type[Sidecar]] = Sidecar
    parts: ClassVar[PartKinds] = {
        "transformer": HunyuanVideoTransformer,
        "vae": HunyuanVideoVae,
        "text_encoder": LlamaFields,
        "tokenizer": Config,
        "text_encoder_2": ClipFields,
        "tokenizer_2": Config,
    }

    @classmethod
    def read(cls, name: str, said: Sidecar, shift: FlowShift) -> Self:
        """Of a folder's sidecar, which may say nothing, and its scheduler."""
        own = {"size": said.size, "fps": said.fps, **said.guidance.model_dump()}
        own |= {"judges": said.judges, "profile": said.profile}
        given: dict[str, Any] = {key: value for key, value in own.items() if value is not None}
        return cls(name=name, shift=shift, **given)

    @property
    def terms(self) -> tuple[GuidanceTerm, ...]:
        return (
            GuidanceTerm(name="embedded", base=self.embedded, floor=1.0),
            GuidanceTerm(name="text", base=self.text, floor=1.0, lowest=1.0),
        )

    def levels(self, steps: int, size: Size, sampler: str) -> Levels:
        return sigma_table(steps, self.shift, self.shift.shift, sampler=sampler)

    def backend(self) -> "type[HunyuanVideoBackend]":
        from .backend import HunyuanVideoBackend

        return HunyuanVideoBackend
