"""The mp4 on disk, pictures of a film and the measure of motion."""

import shutil
from fractions import Fraction
from itertools import product

import av
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from framepack_relax.video.contact import ContactSheet
from framepack_relax.video.curves import draw_curves
from framepack_relax.video.lettering import DOTS, Lettering
from framepack_relax.video.motion import MotionMeter
from framepack_relax.video.reader import read_frames, read_metadata
from framepack_relax.video.writer import Mp4Writer


def moving_square(frames, step, size=64, side=12):
    clip = np.full((frames, size, size, 3), 40, np.uint8)
    for t in range(frames):
        x = 4 + round(t * step) % (size - side - 8)
        clip[t, 20 : 20 + side, x : x + side] = (220, 180, 60)
    return clip


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


def test_the_same_frames_make_the_same_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (37, 64, 64, 3), dtype=np.uint8)
    for name in "ab":
        write(tmp_path / f"{name}.mp4", [noise[:4], noise[4:]], title="x")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    write(tmp_path / "c.mp4", [noise[:4], noise[4:][::-1]], title="x")
    assert packets(tmp_path / "a.mp4")[:4] == packets(tmp_path / "c.mp4")[:4]
    assert packets(tmp_path / "a.mp4") != packets(tmp_path / "c.mp4")


def test_colours_are_tagged_and_kept(tmp_path):
    colours = np.array([[200, 30, 60], [20, 200, 40], [30, 60, 220], [0, 0, 0], [255, 255, 255]], np.uint8)
    clip = np.broadcast_to(colours[:, None, None], (5, 48, 112, 3))
    with Mp4Writer(tmp_path / "film.mp4", fps=24, size=(112, 48), crf=10, metadata={}) as writer:
        writer.write(clip)
    back = np.stack(list(read_frames(tmp_path / "film.mp4")))
    assert back.shape == clip.shape and np.abs(back.astype(int) - clip).max() <= 4
    with av.open(str(tmp_path / "film.mp4")) as container:
        frame = next(container.decode(video=0))
        bt709, limited = 1, 1
        assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (*[bt709] * 3, limited)


LEVELS = {  # macroblocks a frame and a second, H.264 table A-1
    level: most
    for level, *most in (
        *[(10, 99, 1485), (11, 396, 3000), (12, 396, 6000), (13, 396, 11880), (20, 396, 11880), (21, 792, 19800)],
        *[(22, 1620, 20250), (30, 1620, 40500), (31, 3600, 108000), (32, 5120, 216000), (40, 8192, 245760)],
        *[(42, 8704, 522240), (50, 22080, 589824), (51, 36864, 983040), (52, 36864, 2073600)],
    )
}


@pytest.mark.parametrize("crf", [0, 1, 16, 51])
def test_every_quality_size_and_rate_is_a_film_that_browsers_and_quicktime_play(tmp_path, crf):
    for (width, height), fps in product([(16, 16), (96, 96), (640, 608), (1280, 704)], [1, 30, 240]):
        frames = np.full((3, height, width, 3), 40, np.uint8) + np.arange(width, dtype=np.uint8)[None, None, :, None]
        with Mp4Writer(tmp_path / "f.mp4", fps=fps, size=(width, height), crf=crf, metadata={}) as writer:
            writer.write(frames)
        with av.open(str(tmp_path / "f.mp4")) as container:
            codec = container.streams.video[0].codec_context
            _, profile, _, level = codec.extradata[:4]
            assert codec.name == "h264" and codec.pix_fmt == "yuv420p" and profile in (77, 100), "Main, High"
            assert sum(1 for _ in container.decode(video=0)) == 3
        blocks = width * height // 256
        assert blocks <= LEVELS[level][0] and blocks * fps <= LEVELS[level][1]
        data = (tmp_path / "f.mp4").read_bytes()
        assert 0 < data.index(b"moov") < data.index(b"mdat"), "plays before all of it is there"


def test_the_best_quality_that_plays_is_close_to_lossless(tmp_path):
    clip = moving_square(8, 1.0)
    for crf in (0, 1):
        with Mp4Writer(tmp_path / f"{crf}.mp4", fps=30, size=(64, 64), crf=crf, metadata={}) as writer:
            writer.write(clip)
    back = np.stack(list(read_frames(tmp_path / "0.mp4")))
    assert np.abs(back.astype(int) - clip).mean() < 1.5, "levels of 255, most of them of the conversion to YUV"
    assert packets(tmp_path / "0.mp4") == packets(tmp_path / "1.mp4")


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60000, 1001)])
def test_a_broadcasters_frame_rate_is_kept_exactly(tmp_path, rate):
    with Mp4Writer(tmp_path / "film.mp4", fps=rate, size=(64, 64), crf=16, metadata={}) as writer:
        for _ in range(3):
            writer.write(moving_square(36, 1.0))
    with av.open(str(tmp_path / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate and stream.frames == 108
        assert [frame.time for frame in container.decode(stream)] == pytest.approx([t / rate for t in range(108)])


def test_metadata_survives(tmp_path):
    tags = {"title": "Äß 日本", "framepack_relax_storyboard": 'a: 1\nb: "=;#\\\n  x"\n', "framepack_relax": "{}"}
    write(tmp_path / "film.mp4", [moving_square(8, 1)], **tags)
    back = read_metadata(tmp_path / "film.mp4")
    assert {key: back[key] for key in tags} == tags


def test_a_film_appears_whole_and_until_then_its_part_can_be_played(tmp_path):
    clip = moving_square(12, 1)
    part, film = tmp_path / "film.part.mp4", tmp_path / "film.mp4"
    with (
        pytest.raises(ZeroDivisionError),
        Mp4Writer(film, fps=30, size=(64, 64), crf=16, metadata={"title": "x"}) as writer,
    ):
        for first in (0, 4, 8):
            writer.write(clip[first : first + 4])
            shutil.copy(part, tmp_path / "killed.mp4")  # what a kill -9 would leave
            assert len(list(read_frames(tmp_path / "killed.mp4"))) == first + 3, "all but the very last"
            assert read_metadata(tmp_path / "killed.mp4")["title"] == "x"
        assert not film.exists()
        raise ZeroDivisionError
    assert len(list(read_frames(part))) == 12 and not film.exists()
    write(film, [clip[:4], clip[4:]])
    assert len(packets(film)) == 12 and not part.exists()


def test_a_contact_sheet_shows_the_frames_of_each_scene(tmp_path):
    sheet = ContactSheet(rows=[("first " * 60, 0, 10), ("zweite: 日本", 10, 30)], columns=3)
    frames = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((30, 48, 64, 3), np.uint8) * 8
    for first in range(0, 30, 7):
        sheet.add(first, frames[first : first + 7])
    (tmp_path / "c.png").write_bytes(sheet.png())
    image = np.asarray(Image.open(tmp_path / "c.png"))
    assert image.shape == (2 * (48 + 22) + 4, 3 * 68 + 4, 3)
    middles = [[int(image[22 + 70 * row + 24, 4 + 68 * column + 32, 0]) // 8 for column in range(3)] for row in (0, 1)]
    assert middles == [[0, 4, 9], [10, 20, 29]]


def test_thumbnails_are_reduced_never_enlarged(tmp_path):
    for height, shown in ((48, 48), (160, 160), (320, 160)):
        sheet = ContactSheet(rows=[("a", 0, 1)], columns=1)
        sheet.add(0, np.full((1, height, 2 * height, 3), 77, np.uint8))
        (tmp_path / "c.png").write_bytes(sheet.png())
        image = np.asarray(Image.open(tmp_path / "c.png"))
        assert image.shape == (shown + 26, 2 * shown + 8, 3) and (image[22:-4, 4:-4] == 77).all()


@pytest.mark.parametrize("text", ["word " * 80, "Übergrößenträger " * 20, "日本語 " * 90, "x" * 5000])
def test_long_captions_are_cut_to_their_line(text):
    lettering = Lettering(12, [text])
    line = lettering.fit(text, 300)
    assert line.endswith(DOTS) and (270 < lettering.length(line) <= 300 or line == DOTS)


def font_of(signs, path):
    """A font with a square for each of the signs and a bar for those it lacks."""
    names = [".notdef", *(f"u{ord(sign):x}" for sign in signs)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(sign): name for sign, name in zip(signs, names[1:], strict=True)})
    glyphs = {}
    for name in names:
        pen = TTGlyphPen(None)
        corners = [(100, 0), (100, 700), (800, 700), (800, 0)] if name != ".notdef" else [(0, 0), (0, 90), (9, 0)]
        pen.moveTo(corners[0])
        for corner in corners[1:]:
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Test", "styleName": "Regular"})
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)


ASKED = "赤い人 — “hello” 🎬 crème"


def test_signs_are_written_in_a_font_that_has_them(tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    font_of("赤い", tmp_path / "deep/a.ttf")
    font_of("人🎬—è", tmp_path / "deep/b.otf")
    lettering = Lettering(12, [ASKED], [tmp_path, tmp_path / "missing"])
    line = lettering.fit(ASKED, 600)
    assert line == ASKED
    image = Image.new("RGB", (300, 20), "white")
    lettering.write(image, (0, 2), line, (0, 0, 0))
    dark = (np.asarray(image).min(axis=2) < 60).sum(axis=0)
    assert (dark[:36].reshape(3, 12) >= 5).sum(axis=1).min() >= 6, "three squares of the fonts, not three bars"
    assert lettering.length(line) > 0 and lettering.fit(ASKED, 30).endswith(DOTS)


def test_signs_that_no_font_has_are_written_in_latin_letters_or_left_out():
    lettering = Lettering(12, [ASKED], [])
    assert lettering.fit("a walk\nby the\tsea [at rest]", 300) == "a walk by the sea [at rest]"
    assert lettering.fit("calm: 赤い人が\n浜辺に — 立つ", 300) == "calm: ... i ... ga ... ni - ... tu"
    assert lettering.fit("がっこう カメラ ー 한글 🎬", 300) == "gatukou kamera - hangeul (clapper board)"
    assert lettering.fit("crème brûlée Łódź ½", 300) == "creme brulee Lodz 1/2"
    assert lettering.fit("नमस्ते", 300) == DOTS, "no marks without their letters"
    assert "?" not in lettering.fit(ASKED + "\ud800\u200d\ufe0f\0", 600)


def test_captions_of_the_system_hold_no_sign_that_its_fonts_lack():
    lettering = Lettering(12, [ASKED])
    line = lettering.fit(ASKED, 600)
    assert "?" not in line and all(sign == " " or any(f.has(sign) for f in lettering.faces) for sign in line)


def test_three_thousand_scenes_fit_one_sheet_and_one_page_of_curves(tmp_path):
    rows = [(f"scene-{number}", 2 * number, 2 * number + 2) for number in range(3000)]
    sheet = ContactSheet(rows=rows)
    frames = np.broadcast_to(np.full((1, 160, 320, 3), 90, np.uint8), (500, 160, 320, 3))
    for first in range(0, 6000, 500):
        sheet.add(first, frames)
    assert len(sheet.thumbnails) == 80 * 10
    (tmp_path / "c.png").write_bytes(sheet.png())
    sigmas = np.linspace(1, 0, 1001)[:-1]
    curves = [(row[0], sigmas, {"embedded": 1 + sigmas, "text": np.ones(1000)}) for row in rows]
    (tmp_path / "s.png").write_bytes(draw_curves(curves))
    for name, wide, high in (("c.png", 3244, 14_582), ("s.png", 900, 11_420)):
        with Image.open(tmp_path / name) as image:
            assert image.width <= wide and image.height <= high
            top = np.asarray(image.crop((0, 0, 300, 18)).convert("L"))
            assert (top < 120).sum() > 30, "says how many of how many"


def test_curves_differ_when_scales_do(tmp_path):
    sigmas = [1.0, 0.7, 0.3]
    made = []
    for name, values in (("a", [6, 6, 6]), ("b", [2.25, 3, 5])):
        curves = [("scene", sigmas, {"embedded": values, "text": [scale] * 3}) for scale in (1, 2, 3, 4)]
        (tmp_path / f"{name}.png").write_bytes(draw_curves(curves))
        made.append(np.asarray(Image.open(tmp_path / f"{name}.png")))
    assert made[0].shape == (380, 900, 3) and not np.array_equal(*made)


def test_curves_stay_in_their_panel(tmp_path):
    sigmas = [1.0, 0.5, 0.1]
    for highest in (1.0, 2.6, 5.2, 14.6, 123.0):
        (tmp_path / "c.png").write_bytes(draw_curves([("x " * 90 + "日本", sigmas, {"context": [highest] * 3})]))
        red, _, blue = np.asarray(Image.open(tmp_path / "c.png")).astype(int).transpose(2, 0, 1)
        rows, columns = np.nonzero(red[:165] - blue[:165] > 50)  # the legend is below
        assert 26 < rows.min() <= rows.max() < 90 and 30 < columns.min() and 250 < columns.max() < 290
    assert [file.name for file in tmp_path.iterdir()] == ["c.png"]


def figures(*clips):
    meter = MotionMeter()
    for clip in clips:
        meter.add(clip)
    spans = range(1, len(meter.drifts) - 35, 36)
    return meter.figures([(first, first + 36) for first in spans])


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


def test_a_jump_between_frozen_sections_is_a_seam():
    clip = np.full((73, 16, 16, 3), 90, np.uint8)
    assert figures(clip)[1].seam == 1
    clip[37:] += 51
    assert figures(clip)[1].seam == pytest.approx(51)
    clip[0] = 0
    assert figures(clip)[0].seam == 1, "the start image is no section"
    clip[37:] = 91
    assert figures(clip)[1].seam == pytest.approx(1, abs=1e-4), "rounding is no seam"


def test_figures_do_not_depend_on_how_frames_arrive():
    clip = moving_square(109, 0.7)
    assert figures(clip) == figures(clip[:4], clip[4:40], clip[40:]) and len(figures(clip)) == 3


def test_drift_is_the_distance_to_the_first_frame():
    clip = np.zeros((37, 8, 8, 3), np.uint8)
    clip[36] = 51
    assert figures(clip)[0].drift == pytest.approx(0.2)


def test_exposure_and_colour_drift_are_told_apart():
    clip = np.full((1 + 3 * 36, 16, 16, 3), (100, 120, 140), np.uint8)
    clip[37:73] += 20  # brighter
    clip[73:, ..., 0] += 40  # redder
    meter = MotionMeter()
    meter.add(clip)
    calm, bright, red = meter.figures([(0, 37), (37, 73), (73, 109)])
    assert calm.exposure == calm.colour == 0
    assert bright.exposure == pytest.approx(20 / 255, abs=1e-5) and bright.colour == pytest.approx(0, abs=1e-6)
    assert red.exposure == pytest.approx(0.299 * 40 / 255, abs=1e-5) and red.colour > 0.1


def test_a_part_that_can_be_played_stands_until_the_next_has_grown_as_long(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3), np.uint8)

    def begin(chunks):
        with (
            pytest.raises(KeyboardInterrupt),
            Mp4Writer(tmp_path / "f.mp4", fps=30, size=(32, 32), crf=20, metadata={}) as w,
        ):
            for chunk in chunks:
                w.write(chunk)
            raise KeyboardInterrupt

    part = tmp_path / "f.part.mp4"
    begin([frames[:20], frames[20:40]])
    assert len(list(read_frames(part))) == 40
    begin([frames[:20]])
    assert len(list(read_frames(part))) == 40, "the longer one"
    begin([frames[:20], frames[20:40], frames[40:60]])
    assert len(list(read_frames(part))) == 60
    with Mp4Writer(tmp_path / "f.mp4", fps=30, size=(32, 32), crf=20, metadata={}) as w:
        w.write(frames[:20])
    assert [file.name for file in tmp_path.iterdir()] == ["f.mp4"] and len(list(read_frames(tmp_path / "f.mp4"))) == 20
