"""The packed token sequence of a section: [4x | 2x | start, 1x | section], as the transformer lays it out.

Follows HunyuanVideoFramepackTransformer3DModel._pack_history_states (diffusers 0.42.1): patch convolutions
(1, 2, 2), (2, 4, 4) and (4, 8, 8) on latents padded up to whole kernels.
"""

from ..plan.history import HistorySlots
from ..relax.unlearning import Part, Segment


def packed_segments(slots: HistorySlots, latent_height: int, latent_width: int) -> tuple[Segment, ...]:
    """Segments of a section of latent_height x latent_width latent pixels, in token order."""

    history: Part = "history"
    section: Part = "section"

    def grid(kernel: int) -> tuple[int, int]:
        return -(-latent_height // kernel), -(-latent_width // kernel)

    def pooled(index: tuple[int, ...], kernel: int) -> tuple[float, ...]:
        return tuple(sum(index[k : k + kernel]) / kernel for k in range(0, len(index), kernel))

    far, mid = pooled(slots.far_index, 4), pooled(slots.mid_index, 2)
    return (
        Segment(parts=(history,) * len(far), frames=far, height=grid(8)[0], width=grid(8)[1]),
        Segment(parts=(history,) * len(mid), frames=mid, height=grid(4)[0], width=grid(4)[1]),
        Segment(
            parts=("reference", "history"), frames=(0.0, float(slots.near_index[0])), height=grid(2)[0],
            width=grid(2)[1],
        ),
        Segment(
            parts=(section,) * len(slots.section_index), frames=tuple(float(i) for i in slots.section_index),
            height=grid(2)[0], width=grid(2)[1],
        ),
    )  # fmt: skip
