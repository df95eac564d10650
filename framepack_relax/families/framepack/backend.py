"""A loaded model: transformer and VAE in memory; text and image encoders come, encode everything at once, and go.

B batch (1), C latent channels, T latent frames, h and w latent height and width
"""

import gc
import string
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from textwrap import shorten
from threading import RLock
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackPipeline, HunyuanVideoFramepackTransformer3DModel
from PIL import Image
from torch import Tensor

from ..sidecar import ModelFacts
from ..catalog import PARTS, Source
from ..identity import checksum, hardware
from ..components import Preset, load_part, put, told_as

PROMPT_TOKENS = 256  # of a prompt; encode_prompt's max_sequence_length


@dataclass(frozen=True, kw_only=True)
class TextCondition:
    """An encoded prompt: tokens [1, M, D], their mask [1, M], the pooled vector [1, P]; and what of it is not read."""

    tokens: Tensor
    mask: Tensor
    pooled: Tensor
    unread: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StartCondition:
    """A shot's start image: its latent frame [1, C, 1, h, w] float32 and its image tokens [1, K, D]."""

    latent: Tensor
    tokens: Tensor


@dataclass(frozen=True, kw_only=True)
class History:
    """The packed past by the transformer's names: `latents_clean` [1, C, 2, h, w] is start image and 1x slot."""

    latents_clean: Tensor
    latents_history_2x: Tensor
    latents_history_4x: Tensor
    indices_latents: Tensor  # of the section itself
    indices_latents_clean: Tensor
    indices_latents_history_2x: Tensor
    indices_latents_history_4x: Tensor


@dataclass(kw_only=True)
class VideoModel:
    """What sampling and decoding need of a model; made by `load`."""

    facts: ModelFacts
    source: Source
    reading: Future[str]  # the source's fingerprint
    stamp: tuple[tuple[str, int, int], ...]  # and its stamp when it was loaded
    transformer: HunyuanVideoFramepackTransformer3DModel
    vae: AutoencoderKLHunyuanVideo
    device: torch.device
    dtype: torch.dtype  # of the transformer
    encoder_dtype: torch.dtype  # of VAE and encoders
    memory: Preset | Literal["auto"] = "auto"  # as asked for
    preset: Preset = "full"  # where weights lie from the next encoding on
    texts: dict[str, TextCondition] = field(default_factory=dict)  # of the film before
    notes: tuple[str, ...] = ()  # what a user should know before rendering
    lock: RLock = field(default_factory=RLock, repr=False, compare=False)
    loaded: dict[str, str] = field(default_factory=dict, repr=False)  # checksums of what `load` gave

    def __post_init__(self) -> None:
        self.loaded = self.loaded or self._checksums()

    def _checksums(self) -> dict[str, str]:
        parts = {"transformer": self.transformer, "vae": self.vae}
        return {name: checksum(part) for name, part in parts.items() if part.device.type != "meta"}

    @property
    def weights(self) -> str:
        """The source's fingerprint; waits until its files are read. Raises ModelError."""
        return self.reading.result()

    @property
    def identity(self) -> str:
        """The fingerprint of its files, or another one if weights in memory are no longer those that were loaded."""
        with self.lock:
            changed = {name: now for name, now in self._checksums().items() if now != self.loaded[name]}
        return blake2b(f"{self.weights} {changed}".encode(), digest_size=16).hexdigest() if changed else self.weights

    @property
    def precision(self) -> str:
        return str(self.dtype)

    @property
    def hardware(self) -> str:
        return hardware(self.device)

    def load(self) -> "VideoModel":
        """It is; see Loading."""
        return self

    @property
    def latent_channels(self) -> int:
        return int(self.transformer.config.in_channels)

    def rest_of(self, preset: Preset) -> torch.device:
        """Where large things lie while they are not needed."""
        return self.device if preset == "full" else torch.device("cpu")

    def place(self) -> None:
        """Moves transformer and VAE to the device: once the encoders are gone, so that they need not share it.

        `tiled` has let go of the transformer for the encoders: it is loaded again.
        """
        if self.transformer.device.type == "meta":
            self.transformer = self._load("transformer").eval()
        put(self.transformer, self.device, streamed=self.preset == "offload")
        put(self.vae, self.device)
        self.vae.use_tiling = self.preset != "full"

    def encode_texts(self, prompts: Iterable[str]) -> tuple[dict[str, TextCondition], dict[str, list[str]]]:
        """Each distinct prompt encoded with the pipeline's own `encode_prompt`, and what of a prompt is not read
        (`unread_parts`). The encoders are loaded for this call and dropped after it; what the call before
        encoded is taken from there."""
        wanted = dict.fromkeys(prompts)
        known = self.texts | self._encode_new([prompt for prompt in wanted if prompt not in self.texts])
        self.texts = {prompt: known[prompt] for prompt in wanted}
        return self.texts, {prompt: text.unread for prompt, text in self.texts.items() if text.unread}

    def unread(self, prompts: Iterable[str]) -> dict[str, list[str]]:
        """What of each prompt is not read (`unread_parts`), without encoding it."""
        tokenizer = load_part(self.source, "tokenizer", self.dtype)
        return {prompt: parts for prompt in dict.fromkeys(prompts) if (parts := unread_parts(tokenizer, prompt))}

    def _encode_new(self, prompts: list[str]) -> dict[str, TextCondition]:
        made: dict[str, TextCondition] = {}
        if not prompts:
            return made
        with self._pipeline("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2") as pipe:
            for prompt in prompts:
                tokens, pooled, mask = (x.to(self.dtype) for x in pipe.encode_prompt(prompt, device=self.device))
                unread = unread_parts(pipe.tokenizer, prompt)
                made[prompt] = TextCondition(tokens=tokens, mask=mask, pooled=pooled, unread=unread)
        return made

    def encode_images(self, images: Mapping[int, tuple[Image.Image, int]]) -> dict[int, StartCondition]:
        """Start images by shot, each with the seed that draws its latent; every image has the film's size."""
        made = {}
        with self._pipeline("image_encoder", "feature_extractor") as pipe:
            put(self.vae, self.device)
            self.vae.use_tiling = False  # a single frame; the start latent must not depend on the preset
            for shot, (image, seed) in images.items():
                pixels = pipe.video_processor.preprocess(image, image.height, image.width)
                noise = torch.Generator("cpu").manual_seed(seed)  # from the CPU whatever the device
                latent = pipe.prepare_image_latents(pixels, dtype=torch.float32, device=self.device, generator=noise)
                seen = pipe.feature_extractor(images=image, return_tensors="pt")  # the picture, not its floats
                seen = seen.to(device=self.device, dtype=pipe.image_encoder.dtype)
                tokens = pipe.image_encoder(**seen).last_hidden_state.to(self.dtype)
                made[shot] = StartCondition(latent=latent, tokens=tokens)
        return made

    @torch.no_grad()
    def velocity(
        self,
        latents: Tensor,
        *,
        sigma: float,
        embedded_scale: float,
        text: TextCondition,
        image_tokens: Tensor,
        history: History,
    ) -> Tensor:
        """One forward pass: latents [1, C, T, h, w] float32 at noise `sigma` -> velocity of the same shape, float32.

        The arguments are those of HunyuanVideoFramepackPipeline's call (diffusers 0.42.1), the timestep rounded to the
        transformer's dtype as FramePack does.
        """
        kind: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        past = {name: x.to(**kind) if name.startswith("latents") else x for name, x in vars(history).items()}
        return self.transformer(
            hidden_states=latents.to(self.dtype),
            timestep=(torch.tensor([sigma], dtype=torch.float32, device=self.device) * 1000).to(self.dtype),
            encoder_hidden_states=text.tokens,
            encoder_attention_mask=text.mask,
            pooled_projections=text.pooled,
            image_embeds=image_tokens,
            guidance=torch.tensor([embedded_scale], **kind) * 1000.0,
            **past,
            return_dict=False,
        )[0].float()

    @contextmanager
    def _pipeline(self, *parts: str) -> Iterator[HunyuanVideoFramepackPipeline]:
        """The diffusers pipeline with only these encoders loaded; they are gone when the block ends."""
        placed = self.transformer.device.type == self.device.type and not hasattr(self.transformer, "_diffusers_hook")
        if self.preset == "tiled" and placed:
            self.transformer.to("meta")  # there is no room for both, perhaps not in main memory either
        loaded: dict[str, Any] = {part: self._load(part) for part in parts}
        for name, part in loaded.items():
            if isinstance(part, torch.nn.Module):
                # the image encoder is small, and its pooling head reads a layer's weights without calling it
                put(part, self.device, streamed=self.preset == "offload" and name != "image_encoder")
        others = {**dict.fromkeys(PARTS), "scheduler": None, "vae": self.vae}
        pipe = HunyuanVideoFramepackPipeline(**{**others, **loaded})
        names = ", ".join((*parts, "vae"))
        with torch.no_grad(), told_as(f"{self.source.name}: {names} do not work together", "download them again"):
            yield pipe
        for name in parts:
            setattr(pipe, name, None)
        del loaded, part
        gc.collect()  # hooks and modules refer to each other
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            getattr(torch._C, "_host_emptyCache", lambda: None)()  # pinned memory of streamed encoders

    def _load(self, part: str) -> Any:
        made = load_part(self.source, part, self.dtype if part == "transformer" else self.encoder_dtype)
        self.source.check(self.stamp)
        return made


def unread_parts(tokenizer: Any, prompt: str) -> list[str]:
    """Words that a word-level tokenizer maps to its unknown token, and what `encode_prompt` cuts off a long prompt."""

    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    said, unknown = [], tokenizer.unk_token_id
    words = dict.fromkeys(word.strip(string.punctuation) for word in prompt.split() if unknown is not None)
    if unread := [word for word in words if word and unknown in tokens(word)]:
        said.append(f"does not know {', '.join(unread)}")
    count = len(tokens(prompt))
    if count > PROMPT_TOKENS:
        said.append(f"reads the first {PROMPT_TOKENS} of {count} tokens")
    return said


def unread_notes(unread: Mapping[str, list[str]]) -> list[str]:
    """What is not read of prompts, a line each."""
    return [f"the model {' and '.join(parts)} in {shorten(prompt, 60)!r}" for prompt, parts in unread.items()]
