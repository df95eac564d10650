"""What a section sees of its shot: which latent frames fill the 1x, 2x and 4x slots, and their RoPE indices.

Follows HunyuanVideoFramepackPipeline (diffusers 0.42.1): `vanilla` is our forward order (FramePack-F1),
`inverted_anti_drifting` the original checkpoint, which renders the last section first and whose history is the future.
Latent frames of a shot count from 0, the start image; section k holds 9k + 1 .. 9k + 9.
"""

from dataclasses import dataclass
from typing import Any

from ...storyboard.fields import Order

SECTION_LATENTS = 9  # latent frames of a section
NEAR, MID, FAR = 1, 2, 16  # latent frames in the 1x, 2x and 4x slots
HISTORY = NEAR + MID + FAR


@dataclass(frozen=True, kw_only=True)
class HistorySlots:
    """Positions (None: zeros, nothing is there yet) and RoPE indices; the start image is always at index 0."""

    near: tuple[int | None, ...]
    mid: tuple[int | None, ...]
    far: tuple[int | None, ...]
    near_index: tuple[int, ...]
    mid_index: tuple[int, ...]
    far_index: tuple[int, ...]
    section_index: tuple[int, ...]
    initial: bool  # first of its shot to be rendered: the history is the one that h0 stands for
    opening: int  # place of that section, whose colours `drift` keeps

    @property
    def needs(self) -> tuple[int, ...]:
        """Places of the sections that fill the slots, and of the opening one."""
        filled = {(p - 1) // SECTION_LATENTS for p in (*self.near, *self.mid, *self.far) if p and p > 0}
        return tuple(sorted(filled | ({self.opening} if not self.initial else set())))


def slots(order: Order, section: int, sections: int, *, film: bool = False) -> HistorySlots:
    """Of section `section` (from 0) of a shot of `sections`; of one that goes on from a `film`, positions up to 0 are
    that film's.

    Its frames and those it sees follow each other in the shot and, after a gap, in the indices: in forward order
    [start 0][4x 1..16][2x 17, 18][1x 19][section 20..28], in inverted order [start 0][gap][section][1x][2x][4x].
    """
    forward, parts = order == "forward", {"far": FAR, "mid": MID, "near": NEAR, "section": SECTION_LATENTS}
    frame = SECTION_LATENTS * section + 1 - (HISTORY if forward else 0)
    index = 1 if forward else 1 + SECTION_LATENTS * inverted_paddings(sections)[-1 - section]
    made: dict[str, Any] = {}
    for name in parts if forward else reversed(parts):
        run = range(frame, frame + parts[name])
        made[name] = tuple(p if film or 0 <= p <= SECTION_LATENTS * sections else None for p in run)
        made[f"{name}_index"] = tuple(range(index, index + parts[name]))
        frame, index = frame + parts[name], index + parts[name]
    del made["section"]
    opening = 0 if forward else sections - 1
    return HistorySlots(**made, initial=section == opening, opening=opening)


def inverted_paddings(sections: int) -> list[int]:
    """Gap to the start image, in sections, by rendering order; beyond four sections it is understated on purpose."""
    if sections > 4:
        return [3] + [2] * (sections - 3) + [1, 0]
    return list(reversed(range(sections)))
