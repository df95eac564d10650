"""What a section sees of its shot: which latent frames fill the 1x, 2x and 4x slots, and their RoPE indices.

Follows HunyuanVideoFramepackPipeline (diffusers 0.42.1): `vanilla` is our forward order (FramePack-F1),
`inverted_anti_drifting` the original checkpoint, which renders the last section first and whose history is the future.
Latent frames of a shot count from 0, the start image; section k holds 9k + 1 .. 9k + 9.
"""

from dataclasses import dataclass

from ...storyboard.schema import Order

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
        filled = {(p - 1) // SECTION_LATENTS for p in (*self.near, *self.mid, *self.far) if p}
        return tuple(sorted(filled | ({self.opening} if not self.initial else set())))


def forward_slots(section: int) -> HistorySlots:
    """Section `section` (from 0) of a shot in forward order: [start 0][4x 1..16][2x 17, 18][1x 19][section 20..28]."""
    newest = SECTION_LATENTS * section
    past = tuple(p if p >= 0 else None for p in range(newest - HISTORY + 1, newest + 1))
    return HistorySlots(
        far=past[:FAR],
        mid=past[FAR : FAR + MID],
        near=past[FAR + MID :],
        far_index=tuple(range(1, 1 + FAR)),
        mid_index=tuple(range(1 + FAR, 1 + FAR + MID)),
        near_index=(HISTORY,),
        section_index=tuple(range(HISTORY + 1, HISTORY + 1 + SECTION_LATENTS)),
        initial=section == 0,
        opening=0,
    )


def inverted_slots(section: int, sections: int) -> HistorySlots:
    """Section `section` of `sections` in inverted order: [start 0][gap][section][1x][2x][4x], the future as history."""
    padding = inverted_paddings(sections)[sections - 1 - section]
    first, end = SECTION_LATENTS * (section + 1) + 1, SECTION_LATENTS * sections
    future = tuple(p if p <= end else None for p in range(first, first + HISTORY))
    index = tuple(range(1 + padding * SECTION_LATENTS, 1 + (padding + 1) * SECTION_LATENTS + HISTORY))
    after = index[SECTION_LATENTS:]
    return HistorySlots(
        near=future[:NEAR],
        mid=future[NEAR : NEAR + MID],
        far=future[NEAR + MID :],
        near_index=after[:NEAR],
        mid_index=after[NEAR : NEAR + MID],
        far_index=after[NEAR + MID :],
        section_index=index[:SECTION_LATENTS],
        initial=section == sections - 1,
        opening=sections - 1,
    )


def inverted_paddings(sections: int) -> list[int]:
    """Gap to the start image, in sections, by rendering order; beyond four sections it is understated on purpose."""
    if sections > 4:
        return [3] + [2] * (sections - 3) + [1, 0]
    return list(reversed(range(sections)))


def slots(order: Order, section: int, sections: int) -> HistorySlots:
    return forward_slots(section) if order == "forward" else inverted_slots(section, sections)


def render_order(order: Order, sections: int) -> list[int]:
    """Sections of a shot in the order in which they are rendered."""
    return list(range(sections)) if order == "forward" else list(reversed(range(sections)))
