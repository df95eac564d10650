"""The packed token sequence of a section: [4x | 2x | start, 1x | section], as the transformer lays it out.

Follows HunyuanVideoFramepackTransformer3DModel._pack_history_states (diffusers 0.42.1): patch convolutions
(1, 2, 2), (2, 4, 4) and (4, 8, 8) on latents padded up to whole kernels.
"""

from ...relax.unlearning import FramePart, Segment
from .history import HistorySlots


def packed_segments(slots: HistorySlots, latent_height: int, latent_width: int) -> tuple[Segment, ...]:
    """Segments of a section of latent_height x latent_width latent pixels, in token order."""

    def segment(kernel: int, frames: tuple[float, ...], *parts: FramePart) -> Segment:
        height, width = -(-latent_height // kernel), -(-latent_width // kernel)
        return Segment(parts=parts * (len(frames) // len(parts)), frames=frames, height=height, width=width)

    def pooled(index: tuple[int, ...], kernel: int) -> tuple[float, ...]:
        return tuple(sum(index[k : k + kernel]) / kernel for k in range(0, len(index), kernel))

    return (
        segment(8, pooled(slots.far_index, 4), "history"),
        segment(4, pooled(slots.mid_index, 2), "history"),
        segment(2, (0.0, float(slots.near_index[0])), "reference", "history"),
        segment(2, pooled(slots.section_index, 1), "section"),
    )
