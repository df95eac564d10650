"""The nodes: four that change a MODEL or a CONDITIONING, and one that renders a storyboard."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import ComfyExtension, io
from PIL import Image
from torch import Tensor

from .. import api
from ..errors import RenderError
from ..storyboard.reader import parse_storyboard
from ..video.reader import read_frames, read_header
from .passes import Curve, blurred, check_flow, image_of, loosened, moved, relaxed_cfg, relaxed_embedded

BOARD = """\
scenes:
  - {id: calm, seconds: 2.4, prompt: a red figure stands still on the beach}
  - {id: flip, seconds: 2.4, prompt: a red figure does a backflip on the beach, intensity: 0.9}
"""


def schema(node: type, name: str, title: str, inputs: list[Any], outputs: list[Any], **more: Any) -> Any:
    """Of a node whose docstring is what ComfyUI shows of it."""
    more |= {"category": "framepack-relax", "description": node.__doc__, "inputs": inputs, "outputs": outputs}
    return io.Schema(node_id=f"FramePackRelax{name}", display_name=title, **more)


def patch(node: type, name: str, title: str, *inputs: Any, **more: Any) -> Any:
    return schema(node, name, title, [io.Model.Input("model"), *inputs], [io.Model.Output()], **more)


def number(name: str, default: float, low: float, high: float, about: str, **more: Any) -> Any:
    return io.Float.Input(name, default=default, min=low, max=high, step=0.01, tooltip=about, **more)


def strength() -> list[Any]:
    """The one number, and what it is made of."""
    about = "0 calm, as the model is; from above 0.25 it lets go; 1 most dynamic"
    return [
        number("intensity", 0.9, 0, 1, about, display_mode=io.NumberDisplay.slider),
        number("beta", 0.75, -1, 1, "how far it lets go at the noisiest step at intensity 1", optional=True),
        number("p", 0.7, 0.05, 8, "how long it stays loose: 0.7 sustained, 1 linear, 2.1 rapid", optional=True),
    ]


class RelaxedGuidance(io.ComfyNode):
    """Lowers the sampler's cfg, and the guidance that HunyuanVideo or Flux is fed, while the noise is high."""

    @classmethod
    def define_schema(cls) -> Any:
        floor = number("s_min", 1.0, 0, 30, "what guidance falls to at beta 1; a lower one stays", optional=True)
        return patch(cls, "Guidance", "Relaxed Guidance", *strength(), floor)

    @classmethod
    def execute(cls, model: Any, intensity: float, beta: float = 0.75, p: float = 0.7, s_min: float = 1.0) -> Any:
        patched, curve = model.clone(), Curve.of(intensity, beta, p)
        if curve.beta:
            check_flow(model)
            patched.add_wrapper_with_key("predict_noise", "framepack_relax", relaxed_cfg(curve, s_min))
            patched.add_wrapper_with_key("apply_model", "framepack_relax", relaxed_embedded(curve, s_min))
        return io.NodeOutput(patched)


class LoosenedContext(io.ComfyNode):
    """Loosens the start image's grip while the noise is high, with one more pass, which does not see it."""

    @classmethod
    def define_schema(cls) -> Any:
        positive = io.Conditioning.Input("positive", tooltip="of WanImageToVideo: it tells length and size")
        return patch(cls, "Context", "Loosened Context", positive, io.Vae.Input("vae"), *strength())

    @classmethod
    def execute(cls, model: Any, positive: Any, vae: Any, intensity: float, beta: float = 0.75, p: float = 0.7) -> Any:
        from comfy.samplers import calc_cond_batch

        patched, curve = model.clone(), Curve.of(intensity, beta, p)
        frames, height, width = image_of(positive[0][1]).shape[2:]
        if curve.beta:
            check_flow(model)
            side, length = vae.spacial_compression_encode(), (frames - 1) * vae.temporal_compression_decode() + 1
            unseen = vae.encode(torch.full((length, height * side, width * side, 3), 0.5))
            patched.set_model_sampler_post_cfg_function(loosened(curve, unseen, calc_cond_batch))
        return io.NodeOutput(patched)


class MotionAmplitude(io.ComfyNode):
    """Sets what stands for unseen frames further from the start image, as PainterI2V. Colours suffer above 1.15."""

    @classmethod
    def define_schema(cls) -> Any:
        amplitude = number("amplitude", 1.15, 1, 2, "1 is off", display_mode=io.NumberDisplay.slider)
        both = ("positive", "negative")
        inputs, outputs = map(io.Conditioning.Input, both), [io.Conditioning.Output(display_name=one) for one in both]
        return schema(cls, "Amplitude", "Motion Amplitude (Wan)", [*inputs, amplitude], outputs)

    @classmethod
    def execute(cls, positive: Any, negative: Any, amplitude: float) -> Any:
        return io.NodeOutput(moved(positive, amplitude), moved(negative, amplitude))


class KVBlur(io.ComfyNode):
    """Smooths self-attention's keys and values over time (Wan, HunyuanVideo)."""

    @classmethod
    def define_schema(cls) -> Any:
        blur = number("blur", 0.6, 0, 8, "of a Gaussian, in latent frames; 0 is off")
        return patch(cls, "Blur", "K/V Blur", blur, is_experimental=True)

    @classmethod
    def execute(cls, model: Any, blur: float) -> Any:
        patched = model.clone()
        if blur > 0:
            patched.add_wrapper_with_key("apply_model", "framepack_relax", blurred(model.model.diffusion_model, blur))
        return io.NodeOutput(patched)


class RenderStoryboard(io.ComfyNode):
    """Renders a framepack-relax storyboard. What is rendered stays; the same board goes on from it."""

    @classmethod
    def define_schema(cls) -> Any:
        inputs = [
            io.String.Input("storyboard", multiline=True, default=BOARD, tooltip="YAML"),
            io.String.Input("model", default="", tooltip="a name, a folder or a hub id; empty: the board's"),
            io.String.Input("folder", default="film", tooltip="in ComfyUI's output folder"),
            io.Image.Input(
                "images", optional=True, tooltip="image1.png, image2.png, .. of the board; it starts on the first"
            ),
        ]
        made = {"frames": io.Image, "path": io.String, "fps": io.Float}
        outputs = [kind.Output(display_name=name) for name, kind in made.items()]
        return schema(cls, "Render", "Render Storyboard", inputs, outputs, is_output_node=True)

    @classmethod
    def execute(cls, storyboard: str, model: str, folder: str, images: Tensor | None = None) -> Any:
        import folder_paths
        from comfy.model_management import throw_exception_if_processing_interrupted, unload_all_models
        from comfy.utils import ProgressBar

        root = Path(folder_paths.get_output_directory()).resolve()
        out = (root / folder).resolve()
        if out == root or not out.is_relative_to(root):
            raise RenderError(f"folder: {folder!r} is none inside ComfyUI's output folder; name one")
        with tempfile.TemporaryDirectory() as beside:
            names = written(images, Path(beside))
            board = parse_storyboard(storyboard, folder=Path(beside))
            board = board.changed(model=model.strip() or board.model, image=board.image or next(iter(names), None))
            bar = ProgressBar(api.plan(board).steps)

            def on_step(section: Any, step: int) -> None:
                bar.update(1)
                throw_exception_if_processing_interrupted()

            unload_all_models()
            film = api.render(board, out=out, on_step=on_step)
        bar.update_absolute(bar.total)
        frames = torch.stack([torch.from_numpy(frame) for frame in read_frames(film.path)]).float() / 255
        return io.NodeOutput(frames, str(film.path), read_header(film.path)[1])


def written(images: Tensor | None, folder: Path) -> list[str]:
    """The names of image1.png, image2.png, .., of a batch [B, H, W, C] in 0..1."""
    pixels: Any = [] if images is None else (images[..., :3].cpu() * 255).round().clamp(0, 255).byte().numpy()
    for count, image in enumerate(pixels, 1):
        Image.fromarray(image).save(folder / f"image{count}.png")
    return [f"image{count + 1}.png" for count in range(len(pixels))]


class Pack(ComfyExtension):
    """All of them."""

    async def get_node_list(self) -> list[Any]:
        return [RelaxedGuidance, LoosenedContext, MotionAmplitude, KVBlur, RenderStoryboard]
