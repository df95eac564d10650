"""The moving picture of README: which films it shows, and that it plays."""

import clips
import numpy as np
from PIL import Image, ImageSequence

from framepack_relax.evaluate.spec import read_sweep


def test_it_shows_every_action_of_the_sweeps_first_seed_arm_by_arm():
    sweep = read_sweep(clips.SWEEP)
    films = [(job.arm.id, job.event.id, job.seed) for job in clips.wanted(clips.SWEEP, clips.ARMS)]
    assert films == [(arm, event.id, sweep.first_seed) for arm in clips.ARMS for event in sweep.scenes]


def test_each_film_moves_in_its_place_and_the_picture_goes_round(tmp_path):
    colours = np.array([[200, 40, 40], [40, 40, 200]], dtype=np.uint8)
    films = [np.tile(colours[[k % 2, 1 - k % 2, k % 2], None, None], (1, 8, 8, 1)) for k in range(4)]
    clips.save(clips.pages(films, ["a", "b"], ["one", "other"]), tmp_path / "x.gif", fps=30)
    with Image.open(tmp_path / "x.gif") as made:
        assert made.info["loop"] == 0 and made.info["duration"] == 100
        shown = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(made)]
    assert len(shown) == 3
    for number, film in enumerate(films):
        row, column = divmod(number, 2)
        y, x = (
            clips.HEAD + row * (8 + clips.HEAD + clips.GAP) + clips.HEAD + 4,
            clips.GAP + column * (8 + clips.GAP) + 4,
        )
        assert all(np.abs(page[y, x] - pixels[4, 4]).max() < 12 for page, pixels in zip(shown, film, strict=True))


def test_what_is_committed_is_small_and_shows_all_of_it():
    assert clips.FILE.stat().st_size <= 1 << 20
    with Image.open(clips.FILE) as made:
        assert made.n_frames > 20 and made.info["loop"] == 0
