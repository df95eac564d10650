"""Parts of a model: loaded by the class that the stock pipeline uses, safetensors only; and where their weights lie."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLWan,
    HeliosTransformer3DModel,
    HunyuanVideoFramepackTransformer3DModel,
    HunyuanVideoTransformer3DModel,
    WanTransformer3DModel,
)
from diffusers.hooks import HookRegistry, apply_group_offloading
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend
from torch import nn

from ..errors import ModelError, RelaxError
from ..storyboard.messages import printable
from . import configs
from .catalog import Source
from .helios.family import HeliosTransformer
from .memory import check_room, free_memory, main_memory_is_full, pinned_bytes, weights_in
from .single import load_single, unpacked
from .wan.configs import WanI2VTransformer, WanTransformer
from .weights import single_file

CLASSES = {  # by what a config is read as
    configs.FramePackTransformer: HunyuanVideoFramepackTransformer3DModel,
    configs.HunyuanVideoTransformer: HunyuanVideoTransformer3DModel,
    configs.HunyuanVideoVae: AutoencoderKLHunyuanVideo,
    HeliosTransformer: HeliosTransformer3DModel,
    WanTransformer: WanTransformer3DModel,
    WanI2VTransformer: WanTransformer3DModel,
    configs.WanVae: AutoencoderKLWan,
    configs.LlamaFields: transformers.LlamaModel,
    configs.ClipFields: transformers.CLIPTextModel,
    configs.UMT5Fields: transformers.UMT5EncoderModel,
    configs.SiglipFields: transformers.SiglipVisionModel,
}
FLOAT8 = torch.float8_e4m3fn
PRECISE = ("embed", "norm", r"^proj_out$")  # layers that never lie in it, besides those that their class names
COMPILER = "inductor"
# of transformers: no hub, no pickle, no kernel that a config names
PLAIN = {"local_files_only": True, "use_safetensors": True, "attn_implementation": "sdpa"}
# weights of the whole network that a text or image encoder is a part of, and buffers of older releases
OUTSIDE = re.compile(
    r"^(lm_head|text_projection|visual_projection|logit_scale|logit_bias)\b|\b(position_ids|rotary_emb\.inv_freq)$"
)


def load_part(source: Source, part: str, dtype: torch.dtype, stored: str = "") -> Any:
    """One component. Raises ModelError, which names the folder, for whatever stands against it.

    The transformer's last layer is float32 whatever its `dtype`, as FramePack has it; `stored` is as a Backend has it.
    """
    folder = source.parts[part]
    with told_as(f"{folder}: the {part} cannot be loaded", "download it again"):
        if part == "feature_extractor":  # Pillow's: torchvision's resize overshoots
            return transformers.SiglipImageProcessorPil(**_said(source, part))
        if part.startswith("tokenizer"):
            return _tokenizer(source, part)
        check_room(folder, part, dtype)
        if stored:
            check_room(folder, part, FLOAT8)
        network = CLASSES[source.kinds[part]]
        options = {"use_safetensors": True, "local_files_only": True, "dtype": dtype, "output_loading_info": True}
        if issubclass(network, transformers.PreTrainedModel):
            shapes = {name: shape for name, (_, shape) in weights_in(folder).items()}
            configs.check_shapes(source.kinds[part], folder, shapes)
            options |= {"config": network.config_class(**_said(source, part)), **PLAIN}
        file = single_file(folder) if part.startswith("transformer") else None
        if stored and file and file.suffix == ".gguf":
            raise ModelError(f"{file}: its layers are packed, and take no other type; write dtype=bfloat16")
        module, told = load_single(network, file, dtype) if file else network.from_pretrained(folder, **options)
    # the libraries only warn of these and fill them with random numbers
    if wrong := sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in told[kind]):
        raise ModelError(
            f"{folder}: {len(wrong)} weights of the {part} are missing or of another shape than its config.json says "
            f"({printable(wrong[0])}); download both again"
        )
    if left := sorted(key for key in told["unexpected_keys"] if not OUTSIDE.search(key)):
        fact = f"{len(left)} weights of the {part} have no place in the network that its config.json describes"
        raise ModelError(f"{folder}: {fact} ({printable(left[0])}); download both again")
    return as_it_lies(module, dtype, stored) if part.startswith("transformer") else module


def as_it_lies(transformer: Any, dtype: torch.dtype, stored: str = "") -> Any:
    """A transformer in `dtype` with its last layer in float32 and, where it is `stored` in less, its large matrices so.

    Embeddings, norms with what modulates them, and the last layer are not.
    """
    if stored == "fp8":
        transformer.enable_layerwise_casting(FLOAT8, compute_dtype=dtype, skip_modules_pattern=PRECISE)
    elif stored:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        kept = re.compile("|".join((*PRECISE, *(transformer._skip_layerwise_casting_patterns or ()))))
        large = lambda layer, name: isinstance(layer, nn.Linear) and not kept.search(name)  # noqa: E731
        quantize_(transformer, Int8WeightOnlyConfig(set_inductor_config=False), filter_fn=large)
    transformer.proj_out = unpacked(transformer.proj_out)
    transformer.proj_out.register_forward_pre_hook(lambda layer, given: (given[0].float(),))
    return transformer


@contextmanager
def as_it_works(transformer: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within it weights that lie in fp8 are, without contents, of the type in which they work: PEFT goes by that."""
    lying = [(weights, weights.data) for weights in transformer.parameters() if weights.dtype == FLOAT8]
    for weights, data in lying:
        weights.data = torch.empty((), dtype=dtype, device=data.device).expand(data.shape)
    try:
        yield
    finally:
        for weights, data in lying:
            weights.data = data


@contextmanager
def told_as(fact: str, cure: str) -> Iterator[None]:
    """Whatever the libraries raise against a model's files as a ModelError; Rust's panics are no Exceptions."""
    try:
        yield
    except (RelaxError, torch.OutOfMemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if main_memory_is_full(error):
            raise
        reason = str(error).strip().splitlines() or [repr(error)]
        raise ModelError(f"{fact}: {printable(reason[0], 200)}; {cure}") from error


def _said(source: Source, part: str) -> dict[str, Any]:
    """The fields of a part's config that are known, as it says them."""
    config = configs.read_config(source.kinds[part], source.parts[part])
    return config.model_dump(exclude_unset=True, exclude={"quantization_config"})


def _tokenizer(source: Source, part: str) -> Any:
    """By its own file where there is one: the fast tokenizer needs no network and no extra package."""
    folder, encoder = source.parts[part], part.replace("tokenizer", "text_encoder")
    if (folder / "tokenizer.json").is_file():
        made = transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    else:
        made = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    largest = max(made.get_vocab().values())
    words = configs.read_config(source.kinds[encoder], source.parts[encoder]).vocab_size
    if largest >= words:
        fact = f"knows a token {largest}, and the {encoder} {words} tokens"
        raise ModelError(f"{folder}: {fact}; these parts are not of one model")
    return made


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Those that make up a transformer, in the order in which they work."""
    return [block for part in network.children() if isinstance(part, nn.ModuleList) for block in part]


def attend_with(network: nn.Module, kernels: str) -> None:
    """Attention of the network's blocks by these, diffusers' name. Raises ModelError where a package is missing."""
    with told_as(f"attention={kernels}: cannot be had here", "install that, or use attention=native"):
        with attention_backend(kernels):  # checks what it needs; set for all networks it would be a global
            pass
    for block in blocks_of(network):
        for module in block.modules():
            processor: Any = getattr(module, "processor", None)
            if hasattr(processor, "_attention_backend"):
                processor._attention_backend = AttentionBackendName(kernels)


def compile_blocks(network: nn.Module, wanted: bool) -> None:
    """Each block compiled at its first pass, once for all that are alike, or as it was.

    A block with effects is another graph than one without; their strengths are no part of either. Of a film with more
    kinds of effects and layouts than PyTorch keeps graphs for, the last kinds run as they are.
    """
    for block in blocks_of(network):
        if wanted and block._compiled_call_impl is None:
            block.compile(backend=COMPILER)
        elif not wanted:
            block._compiled_call_impl = None


def stream(module: nn.Module, device: torch.device) -> None:
    """Brings each layer's weights to the device for its turn, the next meanwhile: diffusers' group offloading.

    The same bits, at leaf level.
    """
    cuda = device.type == "cuda"
    _offload(module, device, pinned_bytes(module), offload_type="leaf_level", record_stream=cuda)


def stream_blocks(network: Any, device: torch.device, staying: set[nn.Module]) -> None:
    """The same of a transformer's blocks but for those that stay on the device, as what is in no block does.

    No block leaves before its work is done, so that two at the most are there for their turn. Diffusers would take
    every block: those that stay are out of its sight, and of the rest it has the last layer, for it wants one.
    """
    whole, moving = network._modules, [block for block in blocks_of(network) if block not in staying]
    seen: dict[str, nn.Module] = {"proj_out": network.proj_out}
    for name, part in network.named_children():
        if isinstance(part, nn.ModuleList):
            seen[name] = nn.ModuleList(block for block in part if block not in staying)
        elif name not in seen:
            part.to(device)
    for block in staying:
        block.to(device)
    network._modules = seen
    try:
        _offload(network, device, sum(map(pinned_bytes, moving)), offload_type="block_level", num_blocks_per_group=1)
    finally:
        network._modules = whole


def _offload(module: nn.Module, device: torch.device, pinned: int, **how: Any) -> None:
    """Where so many bytes cannot be pinned, each group of layers is in its turn: slower."""
    apply_group_offloading(
        module, onload_device=device, offload_device=torch.device("cpu"), use_stream=device.type == "cuda",
        low_cpu_mem_usage=pinned > free_memory(), **how,
    )  # fmt: skip


def stop_streaming(module: nn.Module) -> None:
    """Takes that off again; the weights lie in main memory."""
    registry = HookRegistry.check_if_exists_or_initialize(module)
    for hook in ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading"):
        registry.remove_hook(hook, recurse=True)
    module.to("cpu")
