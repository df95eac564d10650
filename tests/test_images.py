"""Start images as people have them: every mode, every orientation, damaged, hostile."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import framepack_relax as fr
from framepack_relax.storyboard.images import ImageError, cut_away, fit_image, read_image

RAMP = np.linspace(0, 1, 64)[None, :].repeat(48, 0)  # dark left, bright right


def saved(image, path, **options):
    image.save(path, **options)
    return path


def grey(image):
    return np.asarray(image, np.float64).mean(-1) / 255


def test_cropped_not_stretched():
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 255
    fitted = np.asarray(fit_image(Image.fromarray(wide), (40, 40)))
    assert fitted.shape == (40, 40, 3) and fitted[:, 3:-3].min() > 250


@pytest.mark.parametrize(
    ("image", "film", "share", "sides"),
    [
        ((120, 40), (40, 40), 2 / 3, "left and right"),
        ((1200, 1600), (640, 608), 1 - 1200 * 608 / (640 * 1600), "top and bottom"),
        ((96, 96), (96, 96), 0, "top and bottom"),
    ],
)
def test_what_the_crop_cuts_away(image, film, share, sides):
    assert cut_away(image, film) == (pytest.approx(share), sides)
    marked = np.zeros((image[1], image[0], 3), np.uint8)
    edge = slice(None), slice(0, image[0] // 8)
    marked[edge if sides == "left and right" else edge[::-1]] = 255
    lost = 255 not in np.asarray(fit_image(Image.fromarray(marked), film))
    assert lost == (share > 0.25), "an eighth goes on each side where a quarter is cut away"


def test_16_bits_of_grey_keep_their_shades(tmp_path):
    file = saved(Image.fromarray((RAMP * 65535).astype(np.uint16)), tmp_path / "deep.png")
    assert np.abs(grey(read_image(file)) - RAMP).max() < 0.5 / 255 + 1e-6
    tiff = saved(Image.fromarray((RAMP * 65535).astype(np.int32)), tmp_path / "deep.tiff")
    assert np.abs(grey(read_image(tiff)) - RAMP).max() < 0.5 / 255 + 1e-6


def test_16_bits_of_colour(tmp_path):
    # Pillow does not write these: a PNG by hand
    rows = b"".join(b"\0" + b"".join(struct.pack(">3H", int(v * 65535), 0, 65535) for v in row) for row in RAMP)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    file = tmp_path / "deep.png"
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    pixels = np.asarray(read_image(file), np.float64)
    assert np.abs(pixels[..., 0] / 255 - RAMP).max() < 1 / 255 and pixels[..., 2].min() == 255


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_exif_says_what_is_up(tmp_path, turn):
    image = Image.fromarray((RAMP * 255).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = turn
    pixels = grey(read_image(saved(image, tmp_path / "turned.jpg", exif=exif, quality=95)))
    expected = np.rot90(RAMP, {3: 2, 6: 3, 8: 1}[turn])
    assert pixels.shape == expected.shape and np.abs(pixels - expected).max() < 0.03


def test_cmyk_palette_alpha_and_animation(tmp_path):
    ramp = Image.fromarray((RAMP * 255).astype(np.uint8)).convert("RGB")
    assert np.abs(grey(read_image(saved(ramp.convert("CMYK"), tmp_path / "ink.jpg", quality=95))) - RAMP).max() < 0.04
    assert np.abs(grey(read_image(saved(ramp.quantize(64), tmp_path / "few.gif"))) - RAMP).max() < 0.03
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert grey(read_image(saved(clear, tmp_path / "clear.png"))).min() == 1
    moving = saved(ramp, tmp_path / "moving.png", save_all=True, append_images=[Image.new("RGB", ramp.size)])
    assert np.abs(grey(read_image(moving)) - RAMP).max() < 0.01, "the first frame"


def zip_bomb(path, width, height):
    """A PNG whose header promises more pixels than memory holds."""
    image = io.BytesIO()
    Image.new("1", (8, 8)).save(image, "PNG")
    data = bytearray(image.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)


def test_what_cannot_be_used_is_a_located_message_before_anything_is_loaded(board, tmp_path):
    bad = {}
    for name, size in (("bomb.png", (60_000, 60_000)), ("big.png", (12_000, 9_000)), ("none.png", (0, 0))):
        zip_bomb(tmp_path / name, *size)
        bad[name] = "pixels" if size[0] == 12_000 else "cannot be read"
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(whole, "JPEG")
    (tmp_path / "half.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "program.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "float.tiff")
    bad |= dict.fromkeys(("half.jpg", "empty.png", "text.png", "program.png"), "cannot be read") | {
        "float.tiff": "floating"
    }
    scenes = "".join(
        f"  - {{id: s{i}, prompt: x, seconds: 1.2, transition: cut, image: {name}}}\n" for i, name in enumerate(bad)
    )
    with pytest.raises(fr.StoryboardError) as raised:
        fr.plan(board(scenes.replace("transition: cut, ", "", 1)))
    told = str(raised.value).splitlines()
    assert len(told) == len(bad)
    for line, (name, fact) in zip(told, bad.items(), strict=True):
        assert "story.yaml:" in line and f"{name}: " in line and fact in line, line


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_images_or_errors(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF"]))
    whole = io.BytesIO()
    Image.fromarray((RAMP * 255).astype(np.uint8)).convert("RGB").save(whole, kind)
    damaged = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    try:
        assert read_image(file).mode == "RGB"
    except ImageError as error:
        assert str(error)
