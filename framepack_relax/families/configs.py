"""What the JSON files of a model's folder may say, and whether its parts fit each other; no torch.

Of a text or image encoder's config only these fields reach the libraries: a folder can name no code, no kernel, no
other file and no repository.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from ..errors import ModelError, Problem, StoryboardError
from ..relax.profile import Profile
from ..storyboard.fields import Order, Pattern, Rate, Scale, Size
from ..storyboard.messages import explain, printable
from ..storyboard.part import Part
from ..storyboard.reader import read_text

SIDECAR = "framepack_relax.json"  # what a plan must know of a model
M = TypeVar("M", bound=BaseModel)
Layers = Annotated[int, Field(ge=1, le=256)]  # and heads; FramePack has 40
Width = Annotated[int, Field(ge=1, le=1 << 17)]
Words = Annotated[int, Field(ge=1, le=1 << 22)]
Token = Annotated[int, Field(ge=0, le=1 << 22)]
Level = Annotated[float, Field(ge=-1e3, le=1e3)]
Small = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Activation = Literal["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "mish", "swish"]


class BaseScales(Part):
    """Of guidance terms, at rest."""

    embedded: Scale | None = None
    text: Scale | None = None
    text_low: Scale | None = None


class Sidecar(Part):
    """What framepack_relax.json may say; of a model of the catalogue only its profile is used."""

    family: str | None = None
    order: Order | None = None
    size: Size | None = None
    fps: Rate | None = None
    guidance: BaseScales = BaseScales()
    embedded_guidance: bool | None = None
    fast: Pattern | None = None  # its steps with `speed: fast`
    judges: Literal["packaged"] | None = None  # of its films, where the usual ones do not know its world
    profile: Profile | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What it says, the scales of its guidance among the rest."""
        return {name: value for name, value in (*self, *self.guidance) if value is not None}


def _nothing(value: Any) -> Any:
    if value is not None:
        raise ValueError("quantised weights are not read; use the same part in bfloat16, float16 or float32")
    return value


class Config(Part, extra="ignore"):
    """Base of them all, itself for what is not checked; what a field does not say is the library's default."""

    file: ClassVar[str] = "config.json"
    layers_field: ClassVar[str] = "num_hidden_layers"  # of an encoder
    quantization_config: Annotated[Any, AfterValidator(_nothing)] = None

    def mistakes(self) -> Iterator[str]:
        """Of fields that do not go together."""
        yield from ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if said := "; ".join(self.mistakes()):
            raise ValueError(said)
        return self


class HunyuanVideoTransformer(Config):
    in_channels: Width = 16
    out_channels: Width = 16
    num_attention_heads: Layers = 24
    attention_head_dim: Width = 128
    num_layers: Layers = 20
    num_single_layers: Layers = 40
    num_refiner_layers: Layers = 2
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    patch_size: Literal[2] = 2
    patch_size_t: Literal[1] = 1
    qk_norm: Literal["rms_norm"] = "rms_norm"
    guidance_embeds: bool = True
    text_embed_dim: Width = 4096
    pooled_projection_dim: Width = 768
    rope_theta: Positive = 256.0
    rope_axes_dim: tuple[Width, Width, Width] = (16, 56, 56)
    image_condition_type: None = None

    def mistakes(self) -> Iterator[str]:
        axes = self.rope_axes_dim
        if sum(axes) != self.attention_head_dim or any(axis % 2 for axis in axes):
            yield f"rope_axes_dim {list(axes)} must be even and add up to attention_head_dim {self.attention_head_dim}"


class FramePackTransformer(HunyuanVideoTransformer):
    has_image_proj: Literal[True]
    image_proj_dim: Width = 1152
    has_clean_x_embedder: Literal[True]


class HunyuanVideoVae(Config):
    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    latent_channels: Width = 16
    down_block_types: tuple[Literal["HunyuanVideoDownBlock3D"], ...] = ("HunyuanVideoDownBlock3D",) * 4
    up_block_types: tuple[Literal["HunyuanVideoUpBlock3D"], ...] = ("HunyuanVideoUpBlock3D",) * 4
    block_out_channels: tuple[Width, Width, Width, Width] = (128, 256, 512, 512)
    layers_per_block: Layers = 2
    act_fn: Activation = "silu"
    norm_num_groups: Width = 32
    scaling_factor: Annotated[float, Field(ge=1e-3, le=1e3)] = 0.476986
    spatial_compression_ratio: Literal[8] = 8
    temporal_compression_ratio: Literal[4] = 4
    mid_block_add_attention: bool = True

    def mistakes(self) -> Iterator[str]:
        if any(width % self.norm_num_groups for width in self.block_out_channels):
            yield f"norm_num_groups {self.norm_num_groups} must divide block_out_channels"
        if not len(self.down_block_types) == len(self.up_block_types) == 4:
            yield "down_block_types and up_block_types must name four blocks each"


class WanVae(Config):
    """AutoencoderKLWan, of Wan 2.1 and 2.2 and what is made after them."""

    base_dim: Width = 96
    decoder_base_dim: Width | None = None
    z_dim: Width = 16
    dim_mult: tuple[Layers, Layers, Layers, Layers] = (1, 2, 4, 4)
    num_res_blocks: Layers = 2
    attn_scales: tuple[float, ...] = ()
    temperal_downsample: tuple[Literal[False], Literal[True], Literal[True]] = (False, True, True)
    dropout: Small = 0.0
    latents_mean: tuple[Level, ...] | None = None
    latents_std: tuple[Positive, ...] | None = None
    is_residual: bool = False
    in_channels: Literal[3, 12] = 3
    out_channels: Literal[3, 12] = 3
    patch_size: Literal[2] | None = None
    scale_factor_temporal: Literal[4] = 4
    scale_factor_spatial: Literal[8, 16] = 8

    def mistakes(self) -> Iterator[str]:
        for name in ("latents_mean", "latents_std"):
            values = getattr(self, name)
            if len(values or (0.0,) * 16) != self.z_dim:  # the library's own are for 16
                yield f"{name} must hold z_dim {self.z_dim} numbers"


class Encoder(Config):
    """What Llama, CLIP and Siglip have in common, with CLIP's defaults."""

    hidden_size: Width = 512
    intermediate_size: Width = 2048
    num_hidden_layers: Layers = 12
    num_attention_heads: Layers = 8
    hidden_act: Activation = "quick_gelu"
    attention_dropout: Small = 0.0

    def mistakes(self) -> Iterator[str]:
        if self.hidden_size % self.num_attention_heads:
            yield f"num_attention_heads {self.num_attention_heads} must divide hidden_size {self.hidden_size}"


class TextConfig(Encoder):
    vocab_size: Words = 49_408
    pad_token_id: Token | None = None
    bos_token_id: Token | None = None
    eos_token_id: Token | list[Token] | None = None

    def mistakes(self) -> Iterator[str]:
        yield from super().mistakes()
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            yield f"pad_token_id {self.pad_token_id} is none of the {self.vocab_size} tokens of vocab_size"


class LlamaFields(TextConfig):
    vocab_size: Words = 32_000
    hidden_size: Width = 4096
    intermediate_size: Width = 11_008
    num_hidden_layers: Annotated[int, Field(ge=3, le=256)] = 32  # the pipeline reads the third state from the end
    num_attention_heads: Layers = 32
    hidden_act: Activation = "silu"
    num_key_value_heads: Layers | None = None
    head_dim: Width | None = None
    max_position_embeddings: Words = 2048
    rms_norm_eps: Small = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_theta: Positive = 10_000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None

    def mistakes(self) -> Iterator[str]:
        yield from super().mistakes()
        if self.num_attention_heads % (self.num_key_value_heads or 1):
            yield f"num_key_value_heads {self.num_key_value_heads} must divide num_attention_heads"
        if (self.head_dim or self.hidden_size // self.num_attention_heads) % 2:
            yield "the size of a head must be even"


class ClipFields(TextConfig):
    max_position_embeddings: Annotated[int, Field(ge=77, le=1 << 22)] = 77  # tokens of a prompt
    layer_norm_eps: Small = 1e-5
    projection_dim: Width = 512


class UMT5Fields(Config):
    vocab_size: Words = 250_112
    d_model: Width = 512
    d_kv: Width = 64
    d_ff: Width = 1024
    num_layers: Layers = 8
    num_heads: Layers = 6
    relative_attention_num_buckets: Annotated[int, Field(ge=2, le=1 << 12)] = 32
    relative_attention_max_distance: Annotated[int, Field(ge=2, le=1 << 16)] = 128
    dropout_rate: Small = 0.1
    layer_norm_epsilon: Small = 1e-6
    feed_forward_proj: Literal["gated-gelu", "relu", "gated-silu"] = "gated-gelu"
    pad_token_id: Token = 0
    eos_token_id: Token = 1

    layers_field = "num_layers"


class SiglipFields(Encoder):
    hidden_size: Width = 768
    intermediate_size: Width = 3072
    num_attention_heads: Layers = 12
    hidden_act: Activation = "gelu_pytorch_tanh"
    image_size: Annotated[int, Field(ge=1, le=4096)] = 224
    patch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    num_channels: Literal[3] = 3
    layer_norm_eps: Small = 1e-6
    vision_use_head: bool = True

    def mistakes(self) -> Iterator[str]:
        yield from super().mistakes()
        if self.patch_size > self.image_size:
            yield f"patch_size {self.patch_size} is larger than image_size {self.image_size}"


class PictureSize(Part):
    height: Width
    width: Width


class ProcessorConfig(Config):
    """How a picture becomes what the image encoder sees."""

    file: ClassVar[str] = "preprocessor_config.json"
    do_convert_rgb: bool | None = None
    do_resize: bool = True
    size: PictureSize = PictureSize(height=224, width=224)
    resample: Annotated[int, Field(ge=0, le=5)] = 3
    do_rescale: bool = True
    rescale_factor: Level = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[Level, Level, Level] = (0.5, 0.5, 0.5)
    image_std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)


class Tower(Config):
    """What bounds the size of a network of any kind."""

    num_hidden_layers: Layers | None = None
    hidden_size: Width | None = None
    intermediate_size: Width | None = None
    vocab_size: Words | None = None
    max_position_embeddings: Words | None = None


class NetworkConfig(Tower):
    """A network that judges films."""

    text_config: Tower | None = None
    vision_config: Tower | None = None


PartKinds = Mapping[str, type[Config]]  # how the JSON file of each part is read
SHAPES = {  # of an encoder's weights, by how their names end: the field that each size is, or the size
    "embed_tokens.weight": ("vocab_size", "hidden_size"),
    "token_embedding.weight": ("vocab_size", "hidden_size"),
    "shared.weight": ("vocab_size", "d_model"),
    "DenseReluDense.wi_0.weight": ("d_ff", "d_model"),
    "mlp.gate_proj.weight": ("intermediate_size", "hidden_size"),
    "mlp.fc1.weight": ("intermediate_size", "hidden_size"),
    "patch_embedding.weight": ("hidden_size", "num_channels", "patch_size", "patch_size"),
}
LAYER = re.compile(r"\b(?:layers|block)\.(\d+)\.")
FIT = (  # numbers that two parts must share
    ("transformer", "in_channels", "vae", "latent_channels"),
    ("transformer", "out_channels", "vae", "latent_channels"),
    ("transformer", "out_channels", "vae", "z_dim"),
    ("transformer_2", "out_channels", "vae", "z_dim"),
    ("transformer", "text_embed_dim", "text_encoder", "hidden_size"),
    ("transformer", "text_dim", "text_encoder", "d_model"),
    ("transformer_2", "text_dim", "text_encoder", "d_model"),
    ("transformer", "pooled_projection_dim", "text_encoder_2", "hidden_size"),
    ("transformer", "image_proj_dim", "image_encoder", "hidden_size"),
    ("feature_extractor", "size", "image_encoder", "image_size"),
)


def read_json(model: type[M], file: Path) -> M:
    """A file of a model folder. Raises ModelError with every mistake in it."""
    if not file.exists():
        raise ModelError(f"{file}: is missing; the model folder is incomplete")
    try:
        return model.model_validate_json(read_text(file))
    except StoryboardError as error:
        raise ModelError(str(error)) from error
    except ValidationError as error:
        problems = [replace(problem, file=str(file)) for problem in explain(error, model)]
        raise ModelError("\n".join(map(str, problems))) from error


def read_config(kind: type[Config], folder: Path) -> Any:
    """What a part's JSON file says, checked. Raises ModelError with every mistake in it."""
    return read_json(kind, folder / kind.file)


def check_shapes(kind: type[Config], folder: Path, weights: Mapping[str, Sequence[int]]) -> None:
    """Raises ModelError where an encoder's weights are of other shapes than its config says, or fewer."""
    config, file = read_config(kind, folder), folder / kind.file
    layers = 1 + max((int(found[1]) for name in weights if (found := LAYER.search(name))), default=-1)
    said = getattr(config, kind.layers_field)
    if said > layers:
        fact = f"is {said}, and the weights hold {layers}; download both again"
        raise ModelError(str(Problem(file=str(file), path=kind.layers_field, message=fact)))
    for name, shape in weights.items():
        fields = next((fields for end, fields in SHAPES.items() if name.endswith(end)), ())
        for field, size in zip(fields, shape, strict=False):
            if getattr(config, field) != size:
                fact = f"is {getattr(config, field)}, and {printable(name)} in the weights has {size}"
                raise ModelError(str(Problem(file=str(file), path=field, message=f"{fact}; download both again")))


def check_configs(parts: Mapping[str, Path], kinds: PartKinds) -> None:
    """Raises ModelError with every mistake in a model's configs, or with the numbers that do not fit each other."""
    configs: dict[str, Config] = {}
    said: list[str] = []
    for part, kind in kinds.items():
        try:
            configs |= {part: read_config(kind, parts[part])} if kind is not Config else {}
        except ModelError as error:
            said.append(str(error))
    for part, field, other, same in FIT if not said else ():
        here, there = (getattr(configs.get(p), f, None) for p, f in ((part, field), (other, same)))
        sides = set(dict(here).values() if isinstance(here, PictureSize) else [here])
        if None not in (here, there) and sides != {there}:
            place, where = (parts[name] / kinds[name].file for name in (part, other))
            shown = f"{here.width}x{here.height}" if isinstance(here, PictureSize) else here
            fact = f"is {shown}, and {same} in {where} is {there}; these parts are not of one model"
            said.append(str(Problem(file=str(place), path=field, message=fact)))
    if said:
        raise ModelError("\n".join(said))
