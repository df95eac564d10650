"""A loaded model's weights, and where they lie: the networks stay; encoders come, encode everything at once, and go."""

import gc
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..storyboard.words import find_words
from .adapters import Adapter
from .backend import Backend, Need, Placement
from .base import Context, Size
from .catalog import Source, find
from .components import (
    attend_with,
    blocks_of,
    compile_blocks,
    load_part,
    stop_streaming,
    stream,
    stream_blocks,
    told_as,
)
from .engine import will_compile
from .fingerprint import in_background
from .lora import put_on, switch, take_off
from .memory import budget
from .single import parts_of, shape_of

COLUMNS = 4099  # a prime, so that rows of a matrix that trade places are seen


@dataclass(kw_only=True)
class LoadedModel(Backend):
    """What backends that are made of diffusers' components have in common."""

    source: Source
    reading: Future[str]  # the source's fingerprint
    transformer: Any
    transformer_2: Any = None  # where the model is of two
    vae: Any
    encoder_dtype: torch.dtype  # of encoders, and of the VAE unless that has its own
    texts: dict[str, Any] = field(default_factory=dict, repr=False)  # prompts, encoded, of the film before
    loaded: dict[str, str] = field(default_factory=dict, repr=False)  # checksums of what `load` gave
    worn: tuple[Adapter, ...] = ()  # adapters that are on
    placed: Placement | None = field(default=None, repr=False)  # where the transformers lie; None: where they were read

    pipeline: ClassVar[Any]  # diffusers' own, which encodes
    text_parts: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")  # with these
    prompt_tokens: ClassVar[int]  # of a prompt, those that are read
    template: ClassVar[str] = "{}"  # that a prompt is put into to be read
    cropped: ClassVar[int] = 0  # tokens of it, from the first, that are left out then
    vae_dtype: ClassVar[torch.dtype | None] = None

    def __post_init__(self) -> None:
        self.loaded = self.loaded or self._checksums()
        if self.attention:
            for network in self.networks.values():
                attend_with(network, self.attention)

    @classmethod
    def open(
        cls, family: Any, *, name: str, device: torch.device, dtype: torch.dtype, stored: str, **asked: Any
    ) -> Self:
        """Its weights wait in their files until the encoders are gone. Raises ModelError."""
        source, beside = find(name), cls.beside(dtype, device)
        cudnn = torch.backends.cudnn.version() if device.type == "cuda" else None
        transformers = [part for part in source.kinds if part.startswith("transformer")]
        return cls(
            family=family,
            source=source,
            reading=in_background(source.fingerprint),
            **{part: load_part(source, part, dtype, stored).eval() for part in transformers},
            vae=load_part(source, "vae", cls.vae_dtype or beside).eval(),
            device=device,
            dtype=dtype,
            stored=stored,
            encoder_dtype=beside,
            **asked,
            notes=tuple(known_faults(torch.__version__, cudnn, {dtype, beside})),
        )

    @staticmethod
    def beside(dtype: torch.dtype, device: torch.device) -> torch.dtype:
        """Of encoders."""
        return encoder_dtype(dtype, device)

    def encode_prompts(self, prompts: Iterable[str]) -> Mapping[str, Any]:
        """Encoders are loaded for this call and dropped after it; what the call before encoded is taken from there."""
        wanted, known = list(dict.fromkeys(prompts)), self.texts
        if new := [prompt for prompt in wanted if prompt not in known]:
            with self.encoders(*self.text_parts) as pipe:
                known = known | {prompt: self.encode_text(pipe, prompt) for prompt in new}
        self.texts = {prompt: known[prompt] for prompt in wanted}
        return self.texts

    def encode_text(self, pipe: Any, prompt: str) -> Any:
        """As the pipeline encodes a prompt, for `predict`."""
        raise AssertionError

    def unread(self, prompts: Iterable[str]) -> dict[str, list[str]]:
        tokenizer = load_part(self.source, "tokenizer", self.dtype)
        found = {p: [*unread_parts(tokenizer, p, self.prompt_tokens)] for p in dict.fromkeys(prompts)}
        return {prompt: parts for prompt, parts in found.items() if parts}

    def readable(self, text: str) -> str:
        """As the pipeline cleans it."""
        return text

    def word_tokens(self, prompt: str, words: Iterable[str]) -> Mapping[str, Sequence[int]]:
        if not (wanted := list(words)):
            return {}
        tokenizer, text = load_part(self.source, "tokenizer", self.dtype), self.readable(prompt)
        before, after = self.template.split("{}")
        spans = tokenizer(before + text + after, return_offsets_mapping=True).offset_mapping[self.cropped :]
        spans = [(first - len(before), end - len(before)) for first, end in spans[: self.prompt_tokens]]

        def tokens(places: list[tuple[int, int]]) -> list[int]:
            return [n for n, (a, b) in enumerate(spans) if any(a < end and first < b for first, end in places)]

        return {each: tokens(find_words(text, self.readable(each))) for each in wanted}

    def _checksums(self) -> dict[str, str]:
        parts = {**self.networks, "vae": self.vae}
        return {name: checksum(part) for name, part in parts.items() if part.device.type != "meta"}

    @property
    def weights(self) -> str:
        """The source's fingerprint; waits until its files are read. Raises ModelError."""
        return self.reading.result()

    @property
    def identity(self) -> str:
        """The fingerprint of its files, or another one if weights in memory are no longer those that were loaded."""
        with self.lock:
            self._wear(())  # they are a film's
            changed = {name: now for name, now in self._checksums().items() if now != self.loaded[name]}
        return blake2b(f"{self.weights} {changed}".encode(), digest_size=16).hexdigest() if changed else self.weights

    @property
    def latent_channels(self) -> int:
        config = self.transformer.config
        return int(config.out_channels or config.in_channels)

    @property
    def networks(self) -> dict[str, Any]:
        """Its transformers by name."""
        known = {"transformer": self.transformer, "transformer_2": self.transformer_2}
        return {name: network for name, network in known.items() if network is not None}

    @property
    def resting(self) -> torch.device:
        """Where large things lie while they are not needed."""
        return self.device if self.preset == "full" else torch.device("cpu")

    @property
    def blocks(self) -> int:
        return sum(len(blocks_of(network)) for network in self.networks.values())

    def staying(self, count: int) -> set[nn.Module]:
        """So many blocks, spread evenly, so that each other one comes while several work."""
        blocks = [block for network in self.networks.values() for block in blocks_of(network)]
        return {block for n, block in enumerate(blocks) if (n + 1) * count // len(blocks) > n * count // len(blocks)}

    def moving(self, placement: Placement) -> list[nn.Module]:
        if isinstance(placement, int):
            stay = self.staying(placement)
            return [block for network in self.networks.values() for block in blocks_of(network) if block not in stay]
        return [*self.networks.values()] if placement == "offload" else []

    def weight_bytes(self, placement: Placement) -> int:
        """What transformers and VAE take of the device; of what comes for its turn the one at work, and the next."""
        weights = [p for network in self.networks.values() for p in network.parameters()]
        lying = [shape_of(p).numel() for p in weights if parts_of(p)[0].element_size() == 1]
        fixed = bytes_of(self.vae) + self.dtype.itemsize * max(lying, default=0)  # the layer at work, as it works
        if placement == "offload":
            return fixed + 2 * max(map(_bytes, weights))
        return fixed + sum(map(_bytes, weights)) - sum(sorted(map(bytes_of, self.moving(placement)))[:-2])

    def need(self, context: Context, latents: int, size: Size, preset: Placement) -> Need:
        return Need(
            weights=self.weight_bytes(preset),
            forward=self.forward_bytes(context, latents, size),
            decode=self.decode_bytes(size, tiled=preset != "full"),
        )

    def forward_bytes(self, context: Context, latents: int, size: Size) -> int:
        """What a pass works with, by estimate."""
        raise AssertionError

    def decode_bytes(self, size: Size, *, tiled: bool) -> int:
        """What a decode of (width, height) px works with, by estimate."""
        raise AssertionError

    def wear(self) -> None:
        self._wear(self.adapters)

    def place(self) -> None:
        """Moves transformers and VAE to the device: once the encoders are gone, so that they need not share it."""
        self.wear()
        if self.placed != self.preset:
            self._gather()
            for network in self.networks.values():
                if isinstance(self.preset, int):
                    stream_blocks(network, self.device, self.staying(self.preset))
                elif self.preset == "offload":
                    stream(network, self.device)
                else:
                    network.to(self.device)
            self.placed = self.preset
        for network in self.networks.values():
            compile_blocks(network, bool(self.compiled))
        self.vae.to(self.device)
        self.vae.use_tiling = self.preset != "full"

    @property
    def streams(self) -> bool:
        """Whether weights come for their turn now."""
        return self.placed not in (None, "full", "tiled")

    @property
    def compiled(self) -> bool | None:
        known = will_compile(self)
        return not self.streams if known is None and self.placed is not None else known

    def _gather(self) -> None:
        """Takes them out of their turns."""
        for network in self.networks.values() if self.streams else ():
            stop_streaming(network)
        self.placed = None

    def _wear(self, adapters: tuple[Adapter, ...]) -> None:
        """Puts these on, each to act at its scale, and takes all others off. Raises ModelError; then none are on."""
        if adapters == self.worn:
            return
        if {adapter.of for adapter in adapters} != {adapter.of for adapter in self.worn}:
            self._gather()
            if self.worn:
                take_off(self.networks)
            self.worn = ()
            try:
                put_on(self.networks, adapters, self.family.original, self.dtype)
            except ModelError:
                take_off(self.networks)
                raise
        if adapters:
            switch(self.networks, adapters)
        self.worn = adapters

    def has_room_for(self, encoders: int) -> bool:
        """Whether the device takes so many bytes of them beside what lies there."""
        limit = budget(self)
        there = bytes_of(self.vae) if self.placed is None else self.weight_bytes(self.placed)
        return limit is None or there + encoders <= limit

    @contextmanager
    def encoders(self, *parts: str) -> Iterator[Any]:
        """The diffusers pipeline with only these encoders loaded; they are gone when the block ends."""
        loaded: dict[str, Any] = {part: self._load(part) for part in parts}
        networks = {name: part for name, part in loaded.items() if isinstance(part, nn.Module)}
        streamed = self.preset == "offload" or not self.has_room_for(sum(map(bytes_of, networks.values())))
        for name, part in networks.items():
            # the image encoder is small, and its pooling head reads a layer's weights without calling it
            if streamed and name != "image_encoder":
                stream(part, self.device)
            else:
                part.to(self.device)
        others: Mapping[str, Any] = {**dict.fromkeys(self.family.parts), "scheduler": None, "vae": self.vae}
        pipe = self.pipeline(**{**others, **loaded})
        names = ", ".join((*parts, "vae"))
        with torch.no_grad(), told_as(f"{self.source.name}: {names} do not work together", "download them again"):
            yield pipe
        for name in parts:
            setattr(pipe, name, None)
        del loaded, networks, part
        if streamed:
            gc.collect()  # hooks and modules refer to each other
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            getattr(torch._C, "_host_emptyCache", lambda: None)()  # pinned memory of streamed encoders

    def _load(self, part: str) -> Any:
        """An encoder, or what belongs to one."""
        made = load_part(self.source, part, self.encoder_dtype)
        self.source.check()
        return made


def bytes_of(module: nn.Module) -> int:
    """Of its parameters."""
    return sum(map(_bytes, module.parameters()))


def _bytes(tensor: Tensor) -> int:
    return sum(part.numel() * part.element_size() for part in parts_of(tensor))


def unread_parts(tokenizer: Any, prompt: str, most: int) -> Iterator[str]:
    """Words that a tokenizer maps to its unknown token, and that of more than `most` tokens the rest is cut off."""

    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    unknown = tokenizer.unk_token_id
    words = dict.fromkeys(word.strip(string.punctuation) for word in prompt.split() if unknown is not None)
    if unread := [word for word in words if word and unknown in tokens(word)]:
        yield f"does not know {', '.join(unread)}"
    count = len(tokens(prompt))
    if count > most:
        yield f"reads the first {most} of {count} tokens"


def checksum(module: nn.Module) -> str:
    """Of the bits of all parameters and buffers by name, and of how strongly adapters (PEFT) act.

    Reads everything once, at the speed of memory; the same on every device.
    """
    state = blake2b(digest_size=16)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        state.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        for part in parts_of(tensor.detach()):
            state.update(_sums(part).cpu().numpy().tobytes())
    for name, part in module.named_modules():
        if hasattr(part, "scaling"):
            acting = [part.scaling, *(getattr(part, word, None) for word in ("active_adapters", "disable_adapters"))]
            state.update(f"{name} {acting}".encode())
    return state.hexdigest()


def _sums(tensor: Tensor) -> Tensor:
    """The tensor's bytes as integers, summed modulo 2^64 in columns, [COLUMNS] or [1, COLUMNS] int64."""
    data = tensor.contiguous().flatten().view(torch.uint8)
    data = data if data.storage_offset() % 8 == 0 and data.data_ptr() % 8 == 0 else data.clone()
    whole = len(data) // (8 * COLUMNS) * 8 * COLUMNS
    rest = nn.functional.pad(data[whole:], (0, 8 * COLUMNS - (len(data) - whole))).view(torch.int64)
    return data[:whole].view(torch.int64).view(-1, COLUMNS).sum(0) + rest


def encoder_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Of encoders and VAE: float16 beside a bfloat16 transformer, as FramePack has them.

    Not on a CPU, where the VAE is a hundred times slower in float16 than in bfloat16 (LOG.md).
    """
    return torch.float16 if dtype == torch.bfloat16 and device.type == "cuda" else dtype


def known_faults(torch_version: str, cudnn: int | None, dtypes: set[torch.dtype]) -> Iterator[str]:
    """What is wrong with 3D convolutions in `dtypes` on CUDA with these versions; cuDNN 9.10.2 is 91002.

    The VAE convolves, and so does the transformer where it takes up latents. Sources: pytorch issues 166643, 163539.
    """
    if cudnn is None or dtypes == {torch.float32}:
        return
    here, cure = f"cuDNN {cudnn // 10_000}.{cudnn // 100 % 100}", "install PyTorch 2.10 or newer"
    if torch_version.startswith("2.9.0") or (torch_version.startswith("2.9.") and cudnn < 91500):
        yield f"PyTorch {torch_version} with {here} decodes in about three times the memory: {cure}, or memory=tiled"
    elif 90800 <= cudnn < 91100 and torch.bfloat16 in dtypes:
        yield f"{here} may compute convolutions in bfloat16, and so the film, wrongly: {cure}"
