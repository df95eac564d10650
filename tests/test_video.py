"""Decoding, the mp4 on disk, pictures of a film and the measure of motion."""

import av
import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoFramepackPipeline
from diffusers.video_processor import VideoProcessor
from PIL import Image

from framepack_relax.video.contact import ContactSheet
from framepack_relax.video.curves import save_curves
from framepack_relax.video.decode import BlendDecoder, soft_append, to_uint8
from framepack_relax.video.motion import MotionMeter
from framepack_relax.video.writer import Mp4Writer, read_frames, read_metadata


def moving_square(frames, step, size=64, side=12):
    clip = np.full((frames, size, size, 3), 40, np.uint8)
    for t in range(frames):
        x = 4 + round(t * step) % (size - side - 8)
        clip[t, 20 : 20 + side, x : x + side] = (220, 180, 60)
    return clip


def test_soft_append_and_uint8_are_diffusers():
    a, b = torch.randn(1, 3, 40, 4, 4), torch.randn(1, 3, 69, 4, 4)
    stock = HunyuanVideoFramepackPipeline._soft_append(None, a, b, 33)
    assert torch.equal(soft_append(a, b, 33), stock) and stock.shape[2] == 76
    images = VideoProcessor().postprocess_video(a, output_type="pil")[0]
    assert np.array_equal(to_uint8(a), np.stack([np.asarray(image) for image in images]))


def test_a_decoder_keeps_33_frames_and_gives_the_rest_at_once(model):
    start = torch.randn(1, 4, 1, 4, 4)
    decoder = BlendDecoder(model.vae, order="forward", start=start, sections=4)
    given = []
    for _ in range(4):
        given.append(len(decoder.push(torch.randn(1, 4, 9, 4, 4))))
        assert decoder.open.shape[2] in (33, 0)
    assert given == [4, 36, 36, 69] and sum(given) == 36 * 4 + 1


def write(path, chunks, **metadata):
    with Mp4Writer(path, fps=30, size=(64, 64), crf=16, metadata=metadata) as writer:
        for chunk in chunks:
            writer.write(chunk)


def packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_a_film_holds_what_was_written_in_order_and_in_time(tmp_path):
    clip = moving_square(77, 1.0)
    write(tmp_path / "film.mp4", [clip[:4], clip[4:40], clip[40:]])
    back = np.stack(list(read_frames(tmp_path / "film.mp4")))
    assert back.shape == clip.shape
    error = ((back.astype(float) - clip) ** 2).mean(axis=(1, 2, 3))
    assert (10 * np.log10(255**2 / error)).min() > 30
    with av.open(str(tmp_path / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 30 and stream.frames == 77
        times = [frame.time for frame in container.decode(stream)]
    assert times == pytest.approx([t / 30 for t in range(77)], abs=1e-4)


def test_a_chunks_packets_depend_on_the_chunk_alone(tmp_path):
    a, b = moving_square(36, 1.0), moving_square(36, 2.5)
    for name, chunks in {"ab": [a, b], "b": [b], "aab": [a, a, b]}.items():
        write(tmp_path / f"{name}.mp4", chunks)
    alone = packets(tmp_path / "b.mp4")
    assert len(alone) == 36
    assert packets(tmp_path / "ab.mp4")[36:] == alone == packets(tmp_path / "aab.mp4")[72:]


def test_metadata_survives(tmp_path):
    tags = {"title": "Äß 日本", "framepack_relax_storyboard": 'a: 1\nb: "=;#\\\n  x"\n', "framepack_relax": "{}"}
    write(tmp_path / "film.mp4", [moving_square(8, 1)], **tags)
    back = read_metadata(tmp_path / "film.mp4")
    assert {key: back[key] for key in tags} == tags


def test_a_film_appears_whole_or_not_at_all(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        Mp4Writer(tmp_path / "film.mp4", fps=30, size=(64, 64), crf=16, metadata={}) as writer,
    ):
        writer.write(moving_square(8, 1))
        assert not (tmp_path / "film.mp4").exists()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_contact_sheet_shows_the_frames_of_each_scene(tmp_path):
    sheet = ContactSheet(rows=[("first " * 60, 0, 10), ("zweite: 日本", 10, 30)], columns=3)
    frames = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((30, 48, 64, 3), np.uint8) * 8
    for first in range(0, 30, 7):
        sheet.add(first, frames[first : first + 7])
    sheet.save(tmp_path / "c.png")
    image = np.asarray(Image.open(tmp_path / "c.png"))
    assert image.shape == (2 * (48 + 22) + 4, 3 * 68 + 4, 3)
    middles = [[int(image[22 + 70 * row + 24, 4 + 68 * column + 32, 0]) // 8 for column in range(3)] for row in (0, 1)]
    assert middles == [[0, 4, 9], [10, 20, 29]]


def test_curves_differ_when_scales_do(tmp_path):
    sigmas = [1.0, 0.7, 0.3]
    made = []
    for name, values in (("a", [6, 6, 6]), ("b", [2.25, 3, 5])):
        save_curves([("scene", sigmas, {"embedded": values, "text": [1, 1, 1]})] * 4, tmp_path / f"{name}.png")
        made.append(np.asarray(Image.open(tmp_path / f"{name}.png")))
    assert made[0].shape == (380, 900, 3) and not np.array_equal(*made)


def figures(*clips):
    meter = MotionMeter()
    for clip in clips:
        meter.add(clip)
    return meter.figures()


def test_motion_of_a_frozen_clip_is_0_and_rises_with_speed():
    frozen, slow, fast = (figures(moving_square(37, step))[0] for step in (0, 0.3, 1.0))
    assert frozen.motion == frozen.drift == 0 and frozen.seam == 1
    assert 0 < slow.motion < fast.motion


def test_the_seam_stands_out_only_when_there_is_one():
    smooth = moving_square(73, 1.0)
    jumped = smooth.copy()
    jumped[37:] = np.roll(jumped[37:], 25, axis=1)
    assert figures(smooth)[1].seam == pytest.approx(1, abs=0.6)
    assert figures(jumped)[1].seam > 2 * figures(smooth)[1].seam


def test_figures_do_not_depend_on_how_frames_arrive():
    clip = moving_square(109, 0.7)
    assert figures(clip) == figures(clip[:4], clip[4:40], clip[40:]) and len(figures(clip)) == 3


def test_drift_is_the_distance_to_the_first_frame():
    clip = np.zeros((37, 8, 8, 3), np.uint8)
    clip[36] = 51
    assert figures(clip)[0].drift == pytest.approx(0.2)
