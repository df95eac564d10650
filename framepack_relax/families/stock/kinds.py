"""What there is to relax in diffusers' own pipelines (0.42.1), and the layout of the tokens of their passes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import ModelError
from ...relax.unlearning import FramePart, Segment
from ..attention import Editing
from ..framepack.backend import packed
from ..helios.backend import PACKED, HeliosProcessor
from ..hunyuan_video.attention import EditedProcessor, EditedProcessor15
from ..wan.attention import EditedProcessor as WanProcessor

Arguments = Mapping[str, Any]  # of a call, by name
Layout = Callable[[Any, Arguments], tuple[Segment, ...]]  # of a pass: the transformer's config, what it is called with


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of pipeline: where its scales are, how it attends, what its tokens are."""

    processor: type[Editing]  # of self-attention
    layout: Layout
    text: str = "guidance_scale"  # the argument of the pipeline's call that is true CFG's scale; "": its guider has it
    embedded: str = ""  # the argument that is the embedded scale
    by_frame: bool = False  # frames have timesteps, and so scales, of their own; a blur reads hidden (later) ones too

    def terms(self, pipe: Any) -> tuple[str, ...]:
        """Of guidance, the usual one first."""
        return ("embedded", "text") if self.embedded and pipe.transformer.config.guidance_embeds else ("text",)

    def scale(self, pipe: Any, term: str, arguments: Arguments, *, second: bool = False) -> float:
        """With which a pipeline is called, at rest; `second`: that of its second transformer."""
        if term == "embedded":
            return float(arguments[self.embedded])
        if not self.text:
            return float(pipe.guider.guidance_scale + pipe.guider.use_original_formulation)  # that one means s - 1
        other = arguments.get("guidance_scale_2") if second else None
        return float(arguments[self.text] if other is None else other)


def clip(config: Any, arguments: Arguments, *, clean: int = 0) -> tuple[Segment, ...]:
    """One grid of all frames, of which the first `clean` are those of an image."""
    size, (frames, height, width) = config.patch_size, arguments["hidden_states"].shape[2:]
    deep, high, wide = (config.patch_size_t, size, size) if isinstance(size, int) else size
    frames //= deep
    parts: tuple[FramePart, ...] = ("reference",) * clean + ("section",) * (frames - clean)
    return (Segment(parts=parts, frames=tuple(map(float, range(frames))), height=height // high, width=width // wide),)


def hunyuan(config: Any, arguments: Arguments) -> tuple[Segment, ...]:
    return clip(config, arguments, clean=int(config.image_condition_type == "token_replace"))


def wan(config: Any, arguments: Arguments) -> tuple[Segment, ...]:
    """With a timestep per token those of a clean first frame are 0."""
    timestep = arguments["timestep"]
    return clip(config, arguments, clean=int(timestep.ndim == 2 and timestep[0, 0].item() == 0))


def history(names: Mapping[str, str]) -> Layout:
    """FramePack's, with the `names` that a transformer has for its arguments."""
    kept = ("indices_latents_history_4x", "indices_latents_history_2x", "indices_latents_clean", "indices_latents")

    def layout(config: Any, arguments: Arguments) -> tuple[Segment, ...]:
        far, mid, clean, section = (arguments[names.get(name, name)].flatten().tolist() for name in kept)
        height, width = arguments["hidden_states"].shape[3:]
        return packed(far, mid, clean, section, (height, width))

    return layout


HUNYUAN = Kind(processor=EditedProcessor, layout=hunyuan, text="true_cfg_scale", embedded="guidance_scale")
FRAMEPACK = Kind(processor=EditedProcessor, layout=history({}), text="true_cfg_scale", embedded="guidance_scale")
WAN = Kind(processor=WanProcessor, layout=wan)
SKYREELS = Kind(processor=WanProcessor, layout=clip, by_frame=True)
GUIDED = Kind(processor=EditedProcessor15, layout=clip, text="")

PIPELINES = {
    "HunyuanVideoPipeline": HUNYUAN,
    "HunyuanVideoImageToVideoPipeline": HUNYUAN,
    "HunyuanVideoFramepackPipeline": FRAMEPACK,
    "WanPipeline": WAN,
    "WanImageToVideoPipeline": WAN,
    "HeliosPipeline": Kind(processor=HeliosProcessor, layout=history(PACKED)),
    "SkyReelsV2DiffusionForcingPipeline": SKYREELS,
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": SKYREELS,
    "HunyuanVideo15Pipeline": GUIDED,
    "HunyuanVideo15ImageToVideoPipeline": GUIDED,
}


def known_class(pipe: Any) -> type[Any]:
    """A pipeline's, or the one of which its own is a subclass, in PIPELINES. Raises ModelError."""
    for kind in type(pipe).__mro__:
        if kind.__name__ in PIPELINES:
            return kind
    raise ModelError(f"{type(pipe).__name__} cannot be relaxed; known are {', '.join(PIPELINES)}")
