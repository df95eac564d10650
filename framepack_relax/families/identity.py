"""Whether weights in memory are still those that were loaded: an edit or an adapter makes another model of them."""

from hashlib import blake2b

import torch
from torch import Tensor, nn

COLUMNS = 4099  # a prime, so that rows of a matrix that trade places are seen


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


def hardware(device: torch.device) -> str:
    """What a film is rendered on, in words."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
