"""Motion by optical flow on films whose motion is known."""

import cv2
import numpy as np
import pytest

from framepack_relax.evaluate.flow import MOVING, SMALLEST, measure_motion


def textured(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def film(frames=31, size=256, speed=0.0, pan=0.0, patch=80):
    """A textured square that crosses a textured background; px a frame."""
    ground, square = textured(size + 8, 2 * size), textured(patch, patch, 1)
    made = []
    for number in range(frames):
        left = round(pan * number)
        frame = ground[:size, left : left + size].copy()
        x = 20 + round(speed * number)
        frame[90 : 90 + patch, x : x + patch] = square
        made.append(frame)
    return np.stack(made)


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0, 3.0])
def test_the_series_is_the_speed_of_what_moves(speed):
    motion = measure_motion(film(speed=speed), 30)
    assert motion["mean"] == pytest.approx(speed * 30 / 256, rel=0.2)
    assert motion["near"] == pytest.approx(speed * 30 / SMALLEST, rel=0.25), "the square is smaller than a region"
    assert motion["dynamic"] == (speed * 30 / SMALLEST > MOVING)


def test_nothing_moves_in_a_still_film_and_a_single_frame_has_no_motion():
    still = measure_motion(film(), 30)
    assert still["mean"] < 0.005 and not still["dynamic"]
    assert measure_motion(film(frames=1), 30)["mean"] == 0


def test_flat_surfaces_and_a_codecs_grain_do_not_move():
    rng = np.random.default_rng(0)
    sky = np.linspace(120, 150, 96, dtype=np.float32)[:, None, None].repeat(96, 1).repeat(3, 2)
    grainy = np.stack([np.clip(sky + rng.normal(0, 1.5, sky.shape), 0, 255) for _ in range(31)]).astype(np.uint8)
    assert measure_motion(grainy, 30)["mean"] < 0.01


@pytest.mark.parametrize("moving", [True, False])
def test_a_figure_that_is_small_in_the_picture_moves_if_a_large_one_does(moving):
    large = film(speed=3.0 * moving)
    ground, near, rng = textured(512, 512, 2), [], np.random.default_rng(0)
    for frame in large:
        far = ground.astype(np.float32) + rng.normal(0, 3, ground.shape)
        far[130:386, 200:456] = frame
        near.append(far.clip(0, 255).astype(np.uint8))
    here, there = measure_motion(large, 30), measure_motion(np.stack(near), 30)
    assert here["dynamic"] == there["dynamic"] == moving
    if moving:
        assert there["mean"] < 0.3 * here["mean"] and there["near"] > 0.45 * here["near"]


def test_a_pan_is_the_cameras_motion_and_not_the_films():
    pan = measure_motion(film(pan=2.0, patch=4), 30)
    assert pan["camera_and_all"] == pytest.approx(2 * 30 / 256, rel=0.2)
    assert pan["mean"] < 0.03 and not pan["dynamic"]
    both = measure_motion(film(pan=2.0, speed=2.0), 30)  # the square goes to the right, the ground to the left
    assert both["mean"] == pytest.approx(4 * 30 / 256, rel=0.2)


def test_the_figure_depends_on_neither_size_nor_frame_rate():
    frames = film(frames=61, speed=1.0)
    small = np.stack([cv2.resize(frame, (96, 96), interpolation=cv2.INTER_AREA) for frame in frames])
    whole = measure_motion(frames, 30)
    assert measure_motion(small, 30)["mean"] == pytest.approx(whole["mean"], rel=0.25)
    assert measure_motion(frames[::2], 15)["mean"] == pytest.approx(whole["mean"], rel=0.15)


def test_the_beginning_is_told_apart():
    late = np.concatenate([film(frames=40), film(frames=30, speed=2.0)])
    motion = measure_motion(late, 30)
    assert motion["at_once"] < 0.02 < motion["mean"]
