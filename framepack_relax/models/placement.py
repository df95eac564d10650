"""Where weights lie: on the device, or in main memory from where they come a block at a time."""

from typing import Literal, get_args

import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

# full: everything on the device. tiled: the VAE decodes in tiles, and what it keeps between sections waits in main
# memory. offload: tiled, and the weights of transformer and encoders wait in main memory too.
Preset = Literal["full", "tiled", "offload"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


def put(module: nn.Module, device: torch.device) -> None:
    """Moves a module to the device as a whole, unless its weights already come there by themselves."""
    if not _streamed(module):
        module.to(device)


def stream_weights(module: nn.Module, device: torch.device) -> None:
    """From now on each layer's weights come to the device for its turn, the next while it works, and go again.

    The results are the same bits. There is no way back. diffusers' group offloading at leaf level.
    """
    if not _streamed(module):
        apply_group_offloading(
            module,
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=device.type == "cuda",
        )


def _streamed(module: nn.Module) -> bool:
    return any(hasattr(part, "_diffusers_hook") for part in module.modules())
