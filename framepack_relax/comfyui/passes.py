"""What the nodes do in a model's passes, as wrappers and functions of the kinds that ComfyUI calls; none imports it.

B batch, C channels, T latent frames, h and w latent height and width, L tokens, N heads, H head dim
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..relax.guidance import branches, combine, relaxed_scale
from ..relax.latents import amplified
from ..relax.profile import paper_profile
from ..relax.unlearning import Blur, FramePart, Segment

OVERRIDE = "optimized_attention_override"  # of transformer_options: what is called in attention's place
Attention = Callable[..., Tensor]
Given = Mapping[str, Any]
BESIDE = ("reference_latent", "ref_latent", "time_dim_concat")  # conditions whose tokens stand among the video's


@dataclass(frozen=True)
class Curve:
    """Eq. 2 over a flow model's noise fraction."""

    beta: float  # -1..1
    p: float

    @staticmethod
    def of(intensity: float, strongest: float, p: float) -> "Curve":
        """With the beta that the paper's profile has at this intensity (0..1), at 1 it being `strongest`."""
        profile = paper_profile(embedded=False)
        return Curve(profile.beta(intensity) * strongest / profile.points[-1][1], p)

    def scale(self, sigma: Tensor, *, base: float, minimum: float) -> float:
        """s(sigma); a base at or under the minimum stays."""
        return relaxed_scale(float(sigma.max()) ** self.p, base=base, minimum=min(base, minimum), beta=self.beta)


def check_flow(model: Any) -> None:
    """Raises ModelError where sigmas are no noise fractions."""
    if (most := float(model.get_model_object("model_sampling").sigma_max)) > 1:
        cure = "give a flow model, such as Wan, HunyuanVideo, LTX or Flux"
        raise ModelError(f"model: its noise goes to {most:g}, a flow model's to 1; {cure}")


def relaxed_cfg(curve: Curve, minimum: float) -> Callable[..., Tensor]:
    """Around a guider's step: its CFG by the curve; where that has come to 1, ComfyUI leaves the negative pass out."""

    def around(executor: Any, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        guider, base = executor.class_obj, executor.class_obj.cfg
        scale = curve.scale(sigma, base=base, minimum=minimum)
        guider.cfg = scale if len(branches({"text": scale})) > 1 else 1.0
        try:
            return executor(x, sigma, *args, **kwargs)
        finally:
            guider.cfg = base

    return around


def relaxed_embedded(curve: Curve, minimum: float) -> Callable[..., Tensor]:
    """Around a pass: the scale that a distilled model is fed, which its conditioning sets, by the curve."""

    def around(executor: Any, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(given := kwargs.get("guidance"), Tensor):
            scales = [curve.scale(sigma, base=base, minimum=minimum) for base in given.flatten().tolist()]
            kwargs["guidance"] = given.new_tensor(scales).view_as(given)
        return executor(x, sigma, *args, **kwargs)

    return around


def loosened(curve: Curve, unseen: Tensor, run: Callable[..., Sequence[Tensor]]) -> Callable[[Given], Tensor]:
    """After CFG: + (1 - s)(v(c, h - g) - v(c, h)), in what is left when the noise is off, to which v is linear.

    `unseen`: a grey clip as the VAE's latents [1, C, T, h, w]; `run`: calc_cond_batch; no pass where it has no weight.
    """

    def after(args: Given) -> Tensor:
        model, x, sigma, cond = args["model"], args["input"], args["sigma"], args["cond_denoised"]
        scales = {"context": curve.scale(sigma, base=1.0, minimum=0.0)}
        if len(branches(scales)) == 1:
            return args["denoised"]
        grey, unmasked = unseen.to(x.device, copy=True), torch.ones_like(unseen[:, :1])
        given = model.concat_cond(noise=x, concat_latent_image=grey, concat_mask=unmasked, device=x.device)
        (free,) = run(model, [list(blind(args["cond"], given))], x, sigma, args["model_options"])
        return args["denoised"] + combine({"cond": cond, "context": free}, scales) - cond

    return after


def blind(cond: Sequence[Given], concat: Tensor | None) -> Iterator[Given]:
    """ComfyUI's conditions with another tensor beside the noise. Raises ModelError where none like it stands there."""
    for one in cond:
        there = one["model_conds"].get("c_concat")
        if concat is None or there is None or there.cond.shape[1:] != concat.shape[1:]:
            fact = "the model is shown no image beside the noise, or none of its size"
            raise ModelError(f"Loosened Context: {fact}; give it the sampler's own positive, and a model that is")
        yield {**one, "model_conds": {**one["model_conds"], "c_concat": there._copy_with(concat)}}


def image_of(said: Given) -> Tensor:
    """The VAE's latents [1, C, T, h, w] that a conditioning shows an image-to-video model. Raises ModelError."""
    if (latents := said.get("concat_latent_image")) is None:
        raise ModelError("conditioning: it holds no start image; give it what WanImageToVideo has made of one")
    return latents


def moved(conditioning: Sequence[Any], amplitude: float) -> list[Any]:
    """ComfyUI's conditioning, what stands for unseen frames `amplitude` times as far from the image; 1 is off."""
    made = []
    for embedding, said in conditioning:
        latents, mask = image_of(said), said.get("concat_mask")
        changed = amplified(latents, amplitude)
        if mask is not None:  # 0 is seen
            changed = torch.where(mask.amin(dim=1, keepdim=True) > 0, changed, latents)
        made.append([embedding, {**said, "concat_latent_image": changed}])
    return made


@dataclass(frozen=True, kw_only=True)
class BlurredAttention:
    """In attention's place: keys and values of the video's tokens blurred, then what would have been called."""

    blur: Blur
    tokens: int  # of the video
    after: int | None  # tokens of the prompt that follow in the same sequence at least; None: it is the video's alone
    inner: Attention | None = None  # what another has put in attention's place

    def __call__(self, attention: Attention, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kw: Any) -> Tensor:
        apart, length = bool(kw.get("skip_reshape")), k.shape[-2]  # [B, N, L, H], else [B, L, N H]
        whole = length == self.tokens if self.after is None else length >= self.tokens + self.after
        if whole and q.shape[-2] == length:
            k, v = self.blurred(k, apart), self.blurred(v, apart)
        return self.inner(attention, q, k, v, *args, **kw) if self.inner else attention(q, k, v, *args, **kw)

    def blurred(self, x: Tensor, apart: bool) -> Tensor:
        return self.blur(x.transpose(1, 2)).transpose(1, 2) if apart else self.blur(x.unsqueeze(2)).squeeze(2)


def blurred(network: Any, sigma_blur: float) -> Callable[..., Tensor]:
    """Around a pass: eq. 3 on self-attention of Wan's or HunyuanVideo's. Frames that are held clean are read alone.

    Raises ModelError for a network whose tokens are laid out in a way that is not known here.
    """
    joint = hasattr(network, "double_blocks")  # text follows the video in one sequence
    if not (joint or hasattr(network, "blocks")) or len(getattr(network, "patch_size", ())) != 3:
        raise ModelError(f"model: {type(network).__name__} is neither Wan nor HunyuanVideo; K/V Blur knows only these")

    def around(executor: Any, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if found := [name for name in BESIDE if kwargs.get(name) is not None]:
            raise ModelError(f"K/V Blur: {found[0]} puts other tokens among the video's; take the blur off this model")
        concat, text, control, options = args
        height, width = (-(-side // patch) for side, patch in zip(x.shape[3:], network.patch_size[1:], strict=True))
        frames, mask = tuple(map(float, range(x.shape[2]))), kwargs.get("denoise_mask")  # 0 on an image
        noisy = [True] * len(frames) if mask is None else mask.amax(dim=(0, 1, 3, 4)).tolist()
        noisy[0] = noisy[0] and kwargs.get("guiding_frame_index") is None
        parts: tuple[FramePart, ...] = tuple("section" if one else "reference" for one in noisy)
        segment = Segment(parts=parts, frames=frames, height=height, width=width)
        blur = Blur.over([segment], sigma_blur=sigma_blur, scope="section", device=x.device, dtype=x.dtype)
        after = text.shape[1] if joint else None
        edited = BlurredAttention(blur=blur, tokens=segment.tokens, after=after, inner=options.get(OVERRIDE))
        return executor(x, sigma, concat, text, control, {**options, OVERRIDE: edited}, **kwargs)

    return around
