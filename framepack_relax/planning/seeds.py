"""Seeds that stay: a section's noise depends on its scene and its place in it, not on what stands before."""

from hashlib import blake2b


def section_seed(seed: int, scene: str, index: int) -> int:
    """64 bits for section `index` (from 0) of a scene; `seed` is the scene's own, else the board's."""
    return _hash(f"framepack-relax/1|section|{seed}|{index}|{scene}")


def shot_seed(seed: int, scene: str) -> int:
    """64 bits for the start latent of the shot that begins with `scene`."""
    return _hash(f"framepack-relax/1|start|{seed}|{scene}")


def retry_seed(seed: int, attempt: int) -> int:
    """64 bits for another try at a section whose latents were not finite."""
    return _hash(f"framepack-relax/1|retry|{seed}|{attempt}")


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf8"), digest_size=8).digest(), "big")
