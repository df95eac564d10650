"""A loaded model's weights, and where they lie: the networks stay; encoders come, encode everything at once, and go."""

import gc
import string
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .adapters import Adapter
from .backend import Backend, Preset
from .catalog import Source, find
from .components import load_part, stop_streaming, stream, told_as
from .fingerprint import in_background
from .lora import put_on, take_off

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
    streams: bool = field(default=False, repr=False)  # the transformer's weights come layer by layer

    pipeline: ClassVar[Any]  # diffusers' own, which encodes
    loader: ClassVar[Any] = None  # the one that reads LoRA, where it is another
    text_parts: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")  # with these
    prompt_tokens: ClassVar[int]  # of a prompt, those that are read
    vae_dtype: ClassVar[torch.dtype | None] = None

    def __post_init__(self) -> None:
        self.loaded = self.loaded or self._checksums()

    @classmethod
    def open(
        cls, family: Any, *, name: str, device: torch.device, dtype: torch.dtype, memory: Preset | Literal["auto"]
    ) -> Self:
        """Its weights wait in their files until the encoders are gone. Raises ModelError."""
        source, beside = find(name), cls.beside(dtype, device)
        cudnn = torch.backends.cudnn.version() if device.type == "cuda" else None
        return cls(
            family=family,
            source=source,
            reading=in_background(source.fingerprint),
            **{name: load_part(source, name, dtype).eval() for name in source.kinds if name.startswith("transformer")},
            vae=load_part(source, "vae", cls.vae_dtype or beside).eval(),
            device=device,
            dtype=dtype,
            encoder_dtype=beside,
            memory=memory,
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

    def weight_bytes(self, preset: Preset) -> int:
        """What transformers and VAE take of the device."""
        networks = (p for network in self.networks.values() for p in network.parameters())
        sizes, vae = ([p.numel() * p.element_size() for p in part] for part in (networks, self.vae.parameters()))
        return sum(vae) + (2 * max(sizes) if preset == "offload" else sum(sizes))  # a layer at work and the next one

    def place(self) -> None:
        """Moves transformers and VAE to the device: once the encoders are gone, so that they need not share it.

        `tiled` has let go of the transformers for the encoders: they are loaded again.
        """
        for name, network in self.networks.items():
            if network.device.type == "meta":
                setattr(self, name, self._load(name).eval())
                self.streams, self.worn = False, ()
        self._wear(self.adapters)
        streams = self.preset == "offload"
        for network in self.networks.values():
            if streams and not self.streams:
                stream(network, self.device)
            elif self.streams and not streams:
                stop_streaming(network)
            if not streams:
                network.to(self.device)
        self.streams = streams
        self.vae.to(self.device)
        self.vae.use_tiling = self.preset != "full"

    def _wear(self, adapters: tuple[Adapter, ...]) -> None:
        """Puts these on, and takes all others off. Raises ModelError; then none are on."""
        if adapters == self.worn:
            return
        for network in self.networks.values() if self.streams else ():
            stop_streaming(network)
        if self.worn:
            take_off(self.networks)
        self.streams, self.worn, self.told = False, (), ()
        try:
            self.told = tuple(put_on(self.networks, adapters, self.loader or self.pipeline, self.dtype))
        except ModelError:
            take_off(self.networks)
            raise
        self.worn = adapters

    @contextmanager
    def encoders(self, *parts: str) -> Iterator[Any]:
        """The diffusers pipeline with only these encoders loaded; they are gone when the block ends."""
        if self.preset == "tiled" and not self.streams and self.transformer.device.type == self.device.type:
            for network in self.networks.values():
                network.to("meta")  # there is no room for both, perhaps not in main memory either
        loaded: dict[str, Any] = {part: self._load(part) for part in parts}
        for name, part in loaded.items():
            if isinstance(part, nn.Module):
                # the image encoder is small, and its pooling head reads a layer's weights without calling it
                if self.preset == "offload" and name != "image_encoder":
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
        del loaded, part
        gc.collect()  # hooks and modules refer to each other
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            getattr(torch._C, "_host_emptyCache", lambda: None)()  # pinned memory of streamed encoders

    def _load(self, part: str) -> Any:
        made = load_part(self.source, part, self.dtype if part.startswith("transformer") else self.encoder_dtype)
        self.source.check()
        return made


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
        state.update(_sums(tensor.detach()).cpu().numpy().tobytes())
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
