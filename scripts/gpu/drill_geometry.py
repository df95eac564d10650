"""The drill's second part: FramePack's full geometry with random weights; what a pass, an edit and a decode cost.

python scripts/gpu/drill_geometry.py RESULT.json [--cpu]

Weights are drawn on the device. Their values say nothing of quality, and kernels take as long with them as with others.
"""

import math
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel
from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn
from drill_record import Record, Stopwatch, laps, spread, with_peak
from torch import Tensor, nn

import framepack_relax as fr
from framepack_relax.families import components
from framepack_relax.families.backend import PRESETS, Given, Start
from framepack_relax.families.base import Size
from framepack_relax.families.catalog import Source, find_family
from framepack_relax.families.components import as_it_lies, compile_blocks
from framepack_relax.families.framepack.backend import FramePackBackend, packed_segments
from framepack_relax.families.framepack.history import HISTORY, SECTION_LATENTS
from framepack_relax.families.hunyuan_video.backend import SectionInputs
from framepack_relax.families.hunyuan_video.stream import StreamDecoder
from framepack_relax.families.loaded import encoder_dtype
from framepack_relax.families.memory import Demand, choose_placement, in_words
from framepack_relax.planning.planner import make_plan
from framepack_relax.planning.renderplan import SectionPlan
from framepack_relax.relax.guidance import Branch
from framepack_relax.sampling.section import sample
from framepack_relax.storyboard import Relax, Scene, storyboard_from_scenes

Networks = tuple[HunyuanVideoFramepackTransformer3DModel, AutoencoderKLHunyuanVideo]
IMAGE = Path(__file__).parents[2] / "storyboards" / "rooftop.png"
BACKENDS = ("native", "_native_cudnn", "_native_flash", "_native_efficient", "xformers")
SECTION = 1.2  # s of film
MEMORY = (*PRESETS[1:-1], "20GiB", "10GiB", PRESETS[-1])  # after `full`
RELAXED: Mapping[str, Relax] = {
    "plain": Relax(),
    "blur": Relax(blur=0.6),
    "bias": Relax(history_gain=0.5),
    "context": Relax(target=("context",), beta=1, experimental={"schedule": "mean"}),  # a second pass in every step
    "plain again": Relax(),
}


def framepack() -> Networks:
    """The real configurations: 20 + 40 blocks, 24 heads of 128; the VAE of HunyuanVideo."""
    transformer = HunyuanVideoFramepackTransformer3DModel(has_image_proj=True, has_clean_x_embedder=True)
    return transformer, AutoencoderKLHunyuanVideo()


def toy() -> Networks:
    """The same classes, hardly any weights, and tiles as small."""
    from training.parts import Sizes, build_transformer, build_vae  # in scripts/, where drill.sh looks too

    vae = build_vae(Sizes.tiny())
    vae.tile_sample_min_height = vae.tile_sample_min_width = 24
    vae.tile_sample_stride_height = vae.tile_sample_stride_width = 16
    return build_transformer(Sizes.tiny()), vae


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is measured where."""

    device: torch.device
    dtype: torch.dtype = torch.bfloat16
    networks: Callable[[], Networks] = framepack
    size: Size = (640, 608)
    prompt_tokens: tuple[int, int] = (128, 256)  # that are read, of how many
    image_tokens: int = 729
    matrix: int = 8192
    steps: int = 6
    whole: int = 25  # steps of a section with `speed: fast`
    repeats: int = 7
    sections: int = 3  # to decode


def rehearsal() -> Setup:
    return Setup(
        device=torch.device("cpu"), dtype=torch.float32, networks=toy, size=(32, 32), prompt_tokens=(8, 16),
        image_tokens=4, matrix=256, steps=3, whole=4, repeats=3, sections=2,
    )  # fmt: skip


def pass_flops(transformer: HunyuanVideoFramepackTransformer3DModel, tokens: int) -> int:
    """Floating-point operations of a forward pass; a product with its addition counts as two.

    For each of S tokens a block multiplies by 12 D^2 weights (4 of attention, 8 of the MLP) and attends with 2 S D
    products. What is not in the blocks is under 0.1 %.
    """
    config = transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    return (config.num_layers + config.num_single_layers) * (24 * width**2 * tokens + 4 * width * tokens**2)


def draw_weights(module: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Moves a module from the meta device: norms at 1, biases at 0, all else normal with deviation .02."""
    assert not list(module.buffers()), "what is not a parameter would stay undefined"
    nn.Module.to(module, dtype).to_empty(device=device).eval().requires_grad_(False)
    for name, values in module.named_parameters():
        if values.ndim > 1:
            values.normal_(std=0.02)
        else:
            values.fill_(float(name.endswith("weight")))
    return module


def random_model(setup: Setup) -> FramePackBackend:
    with torch.device("meta"):
        transformer, vae = setup.networks()
    beside = encoder_dtype(setup.dtype, setup.device)
    reading: Future[str] = Future()
    reading.set_result("random weights")
    return FramePackBackend(
        family=replace(find_family("framepack-f1"), profile=None),
        source=Source(name="random weights", parts={}, kinds={}, stamp=()),
        reading=reading,
        transformer=as_it_lies(draw_weights(transformer, setup.dtype, setup.device), setup.dtype),
        vae=draw_weights(vae, beside, setup.device),
        device=setup.device,
        dtype=setup.dtype,
        encoder_dtype=beside,
    )


def matrix_product(setup: Setup) -> dict[str, float]:
    """The most that matrix products reach here: two random square matrices."""
    left, right = torch.randn(2, setup.matrix, setup.matrix, device=setup.device, dtype=setup.dtype)
    took = spread(laps(lambda: left @ right, 20, setup.device))
    return {"size": setup.matrix, **took, "tflops": 2 * setup.matrix**3 / took["seconds"] / 1e12}


class Geometry:
    """A model with random weights, and the inputs of a section in the middle of a shot."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.model = setup, random_model(setup)
        config, (width, height) = self.model.transformer.config, setup.size
        torch.manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, device=setup.device)

        def latent_frames(count: int) -> Tensor:
            return draw(1, config.in_channels, count, height // 8, width // 8)

        read, tokens = setup.prompt_tokens
        self.text = {
            "encoder_hidden_states": draw(1, tokens, config.text_embed_dim).to(setup.dtype),
            "encoder_attention_mask": (torch.arange(tokens, device=setup.device) < read).to(setup.dtype)[None],
            "pooled_projections": draw(1, config.pooled_projection_dim).to(setup.dtype),
        }
        image_tokens = draw(1, setup.image_tokens, config.image_proj_dim).to(setup.dtype)
        self.start = Start(latent=latent_frames(1), embeds=image_tokens)
        self.latents = latent_frames(SECTION_LATENTS * setup.sections)
        scenes = [Scene(id="past", prompt="it stands", seconds=SECTION * -(-HISTORY // SECTION_LATENTS))]
        for number, relax in enumerate(RELAXED.values()):
            scenes.append(Scene(id=f"s{number}", prompt="it stands", seconds=SECTION, relax=relax))
        scenes.append(Scene(id="fast", prompt="it stands", seconds=SECTION, speed="fast", steps=setup.whole))
        board = storyboard_from_scenes(scenes, image=str(IMAGE), size=setup.size, steps=setup.steps, profile="paper")
        self.plan = make_plan(board, self.model.family)
        names = [*RELAXED, "fast"]
        self.sections = dict(zip(names, self.plan.sections[-len(names) :], strict=True))
        self.past = {place: latent_frames(SECTION_LATENTS) for place in range(len(self.plan.sections))}

    @property
    def section(self) -> SectionPlan:
        return self.sections["plain"]

    def begin(self, section: SectionPlan, x: Tensor) -> SectionInputs:
        given = Given(
            noise=x, context=section.context, steps=section.steps, start=self.start, prompt=self.text,
            negative=self.text, options=self.plan.options,
            past={place: self.past[place] for place in section.context.needs},
        )  # fmt: skip
        return self.model.begin(given)

    def velocity(self) -> Tensor:
        """One forward pass."""
        x = self.latents[:, :, :SECTION_LATENTS]
        return self.model.predict(x, self.section.steps[0], Branch(name="cond"), self.begin(self.section, x))

    def tokens(self) -> int:
        """Of the joint sequence: video, image, and the part of the prompt that is read."""
        width, height = self.setup.size
        video = sum(segment.tokens for segment in packed_segments(self.section.context, height // 8, width // 8))
        return video + self.setup.image_tokens + self.setup.prompt_tokens[0]

    def forward(self) -> dict[str, float]:
        """The bare pass, at rest."""
        took = spread(laps(self.velocity, self.setup.repeats, self.setup.device))
        if not torch.isfinite(self.velocity()).all():
            raise ArithmeticError("a pass gives NaN or infinity")
        flops = pass_flops(self.model.transformer, self.tokens()) / 1e12
        return {"tokens": self.tokens(), "tflop": flops, **took, "tflops": flops / took["seconds"]}

    def steps(self, name: str) -> dict[str, float]:
        """A step of a section as it is rendered, with its solver and guidance; and its passes."""
        took, forwards = self.sampled(name)
        return {**spread(took[1:]), "passes": forwards / len(took)}

    def fast(self) -> dict[str, float]:
        """Seconds of denoising with `speed: fast`, and over those of as many steps that all ask the network."""
        took, forwards = self.sampled("fast")
        plain = spread(self.sampled("plain")[0][1:])["seconds"]
        return {"seconds": sum(took), "passes": forwards, "steps": len(took), "ratio": sum(took) / plain / len(took)}

    def sampled(self, name: str) -> tuple[list[float], int]:
        """Seconds of each step of a section, and its forward passes."""
        section, watch = self.sections[name], Stopwatch(self.setup.device)
        watch.mark()
        noise = self.model.noise(section.latents, self.setup.size, section.seed).to(self.setup.device)
        inputs = self.begin(section, noise)
        result = sample(
            self.model, inputs, section.steps, noise, sampler=self.plan.sampler, on_step=lambda step, x0: watch.mark()
        )
        return watch.laps(), sum(result.forwards.values())

    def compiled(self) -> dict[str, float]:
        """A bare pass with compiled blocks, over one without; `first` compiles; `error` is rms over that of the rms."""
        network, plain = self.model.transformer, self.velocity()
        eager = spread(laps(self.velocity, self.setup.repeats, self.setup.device))["seconds"]
        watch = Stopwatch(self.setup.device)
        try:
            compile_blocks(network, True)
            watch.mark()
            error = float((self.velocity() - plain).norm() / plain.norm())
            watch.mark()
            took = spread(laps(self.velocity, self.setup.repeats, self.setup.device))
        finally:
            compile_blocks(network, False)
        return {**took, "first": watch.laps()[0], "ratio": took["seconds"] / eager, "error": error}

    def fp8(self) -> dict[str, Any]:
        """The same as `memory` with weights in fp8, which they stay in; `error` of a pass to one before."""
        self.memory("full")
        plain = self.velocity()
        as_it_lies(self.model.transformer, self.setup.dtype, "fp8")
        self.model.stored = "fp8"
        error = float((self.velocity() - plain).norm() / plain.norm())
        return {**self.memory("full"), "error": error}

    def attention(self, backend: str) -> dict[str, Any]:
        """The joint attention of a block by a backend of diffusers, without and with a bias on its keys.

        `error` is rms against float32, over the rms of that, for some queries. What a backend cannot do it says.
        """
        config = self.model.transformer.config
        shape = (1, self.tokens(), config.num_attention_heads, config.attention_head_dim)
        query, key, value = torch.randn(3, *shape, device=self.setup.device, dtype=self.setup.dtype)
        room = torch.zeros(1, 1, 1, -(-shape[1] // 8) * 8, device=self.setup.device, dtype=self.setup.dtype)
        bias = room[..., : shape[1]]  # xformers wants rows that begin at multiples of 8
        bias[..., : shape[1] // 4] = -0.7
        said: dict[str, Any] = {}
        for name, mask in (("plain", None), ("biased", bias)):
            call = partial(dispatch_attention_fn, query, key, value, attn_mask=mask)
            try:
                with attention_backend(backend):
                    took = spread(laps(call, self.setup.repeats, self.setup.device))
                    out = call()[:, :256].float()
            except (RuntimeError, ValueError, NotImplementedError, ImportError) as error:
                said[name] = {"refused": f"{type(error).__name__}: {error}".splitlines()[0][:120]}
                continue
            exact = [x.float().transpose(1, 2) for x in (query[:, :256], key, value)]
            whole = None if mask is None else mask.float()
            wanted = nn.functional.scaled_dot_product_attention(*exact, attn_mask=whole).transpose(1, 2)
            said[name] = {**took, "error": float((out - wanted).norm() / wanted.norm())}
        return said

    def memory(self, memory: str) -> dict[str, Any]:
        """A pass and the decode of sections by the stream, with what lies on the GPU; peaks against the estimate."""
        context, size = self.section.context, self.setup.size
        self.model.memory = memory
        demand = Demand(model=self.model, context=context, latents=SECTION_LATENTS, size=size)
        self.model.preset = choose_placement(demand)
        self.model.place()
        device = self.setup.device
        took, pass_peak = with_peak(lambda: laps(self.velocity, 2, device), device)
        decoder = StreamDecoder(self.model.vae, start=self.start.latent, rest=self.model.resting)
        pieces = iter(self.latents.split(SECTION_LATENTS, dim=2))  # the first has a frame more and no past: it warms up
        decoded, decode_peak = with_peak(
            lambda: laps(lambda: decoder.push(next(pieces)), self.setup.sections - 1, device), device
        )
        placed, estimate = in_words(self.model.preset, self.model.blocks), demand.need(self.model.preset).total
        passes, decodes = spread(took), spread(decoded)
        return {"placed": placed, "pass": passes, "decode": decodes, "pass_peak": pass_peak,
                "decode_peak": decode_peak, "estimate": estimate}  # fmt: skip


def puppet_fast(setup: Setup) -> dict[str, float]:
    """A calm section of the packaged model with `speed: fast` over one with all passes: sampling; dB between both."""
    model, frames, seconds = fr.load("puppet", device=setup.device), dict[str, Any](), dict[str, float]()
    scene = Scene(id="calm", prompt="a red figure stands still on the beach", seconds=SECTION)
    for speed in ("warm", "full", "fast"):
        with TemporaryDirectory() as folder:
            asked: Any = {"steps": setup.whole, "speed": "full" if speed == "warm" else speed, "out": folder + "/film"}
            image = IMAGE.with_name("red-beach.png")
            (done,) = fr.stream([scene], image=str(image), model=model, **asked)
        frames[speed], seconds[speed] = done.frames.astype(float), done.report["seconds"]["sampling"]
    error = float(np.mean((frames["fast"] - frames["full"]) ** 2))
    return {"ratio": seconds["fast"] / seconds["full"], "psnr": 10 * math.log10(255**2 / error)}


def main(file: str, *options: str) -> int:
    if "--cpu" in options:
        torch.set_num_threads(1)  # of so little work two make more
        components.COMPILER = "eager"
    setup = rehearsal() if "--cpu" in options else Setup(device=torch.device("cuda"))
    record = Record(Path(file), setup.device)
    record.measure("matrix product", lambda: matrix_product(setup))
    geometry = Geometry(setup)
    record.put("size", setup.size)
    record.measure("forward", geometry.forward)
    record.measure("memory full", partial(geometry.memory, "full"))
    for name in RELAXED:
        record.measure(f"step {name}", partial(geometry.steps, name))
    record.measure("fast", geometry.fast)
    record.measure("compiled", geometry.compiled)
    for backend in BACKENDS:
        record.measure(f"attention {backend}", partial(geometry.attention, backend))
    for memory in MEMORY:
        record.measure(f"memory {memory}", partial(geometry.memory, memory))
    record.measure("puppet fast", partial(puppet_fast, setup))
    record.measure("memory full, fp8", geometry.fp8)
    return record.finish()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
