"""Start images as people have them: every mode, every orientation, damaged, hostile."""

import io
import itertools
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import framepack_relax as fr
from framepack_relax.storyboard.images import MOST_BYTES, ImageError, cut_away, fit_image, read_image

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


def test_a_start_image_is_scaled_to_whole_pixels_and_then_cropped_as_framepack_does():
    grain = Image.fromarray(np.random.default_rng(3).integers(0, 256, (108, 192, 3), np.uint8))
    scaled = grain.resize((85, 48), Image.Resampling.LANCZOS)  # 85.3 wide
    assert fit_image(grain, (80, 48)).tobytes() == scaled.crop((2, 0, 82, 48)).tobytes()  # from 2.5
    assert fit_image(grain, grain.size).tobytes() == grain.tobytes()


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


D50_OF = {  # XYZ of red, green and blue, and the exponent
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407), 2.4),
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457), 2.19922),
    "sRGB": ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410), 2.4),
}


def fixed(*values):
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def icc(space, name, tags, connection=b"XYZ "):
    """A colour profile (ICC 4.3) from its tags."""
    said = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + b"\0" * 80
    white = {b"cprt": b"text\0\0\0\0none\0", b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)}
    tags = {b"desc": said, **white, **tags}
    table, data, offset = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for key, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        table, data = table + key + struct.pack(">II", offset + len(data), len(value)), data + value
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4sI4s4s4s12s4s", offset + len(data), b"lcms", 4 << 24, kind, space, connection, b"", b"acsp")
    return (head + b"\0" * 28 + fixed(0.9642, 1, 0.8249)).ljust(128, b"\0") + table + data


def curve(gamma):
    """Of a channel; 2.4 is sRGB's."""
    kind, numbers = (3, (gamma, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)) if gamma == 2.4 else (0, (gamma,))
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + fixed(*numbers)


def profile(name, called=""):
    """By its primaries; P3's curve is that of sRGB."""
    *primaries, gamma = D50_OF[name]
    tags = {}
    for letter, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags[letter + b"XYZ"], tags[letter + b"TRC"] = b"XYZ \0\0\0\0" + fixed(*primary), curve(gamma)
    return icc(b"RGB ", called or name, tags)


def inks(lab):
    """Of a press: `lab` gives the bytes of L, a and b for each of the 16 ways to print inks in full or not at all."""
    corners = b"".join(bytes(lab(*inks)) for inks in itertools.product((0, 1), repeat=4))
    even = bytes(range(256))
    head = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return icc(b"CMYK", "sRGB press", {b"A2B0": head + even * 4 + corners + even * 3}, connection=b"Lab ")


@pytest.mark.parametrize("name", ["Display P3", "Adobe RGB"])
@pytest.mark.parametrize("kind", ["png", "jpg", "transparent.png"])
def test_colours_are_those_of_the_images_profile(tmp_path, name, kind):
    """What a phone stores in Display P3, and a camera in Adobe RGB, reads as the same colours in sRGB."""
    colours = [(220, 40, 60), (40, 160, 80), (60, 80, 200), (240, 220, 60), (128, 128, 128), (200, 150, 120)]
    meant = Image.fromarray(np.repeat(np.repeat(np.array([colours], np.uint8), 16, 0), 16, 1))
    icc = profile(name)
    other = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    stored = ImageCms.profileToProfile(meant, ImageCms.createProfile("sRGB"), other, outputMode="RGB")
    assert np.abs(np.asarray(stored, int) - np.asarray(meant, int)).max() > 12, "ignoring the profile would be seen"
    if kind == "transparent.png":
        stored.putalpha(255)
    options = {"quality": 98, "subsampling": 0} if kind == "jpg" else {}
    back = read_image(saved(stored, tmp_path / f"a.{kind}", icc_profile=icc, **options))
    assert back.mode == "RGB" and np.abs(np.asarray(back, int) - np.asarray(meant, int)).max() <= 3


def test_profiles_of_srgb_and_damaged_ones_change_nothing(tmp_path):
    noise = Image.effect_noise((64, 48), 90).convert("RGB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc in (srgb, srgb[:200], b"nonsense", profile("Display P3")[:-60]):
        back = read_image(saved(noise, tmp_path / "a.png", icc_profile=icc))
        assert icc == profile("Display P3")[:-60] or np.array_equal(np.asarray(back), np.asarray(noise))


def test_a_profile_is_known_by_what_it_does_not_by_its_name(tmp_path):
    noise = Image.effect_noise((64, 48), 90).convert("RGB")
    plain, colour = np.asarray(noise), Image.new("RGB", (8, 8), (220, 40, 60))
    mine = profile("sRGB", called="My Monitor")
    assert np.array_equal(np.asarray(read_image(saved(noise, tmp_path / "a.png", icc_profile=mine))), plain)
    seen = {}
    for called in ("Display P3", "sRGB IEC61966-2.1", "not sRGB"):
        icc_profile = profile("Display P3", called=called)
        seen[called] = read_image(saved(colour, tmp_path / "b.png", icc_profile=icc_profile)).getpixel((4, 4))
    assert len(set(seen.values())) == 1 and seen["not sRGB"][0] > 235, seen


def test_profiles_of_greys(tmp_path):
    ramp = Image.fromarray((RAMP * 255).astype(np.uint8))
    pixels = grey(read_image(saved(ramp, tmp_path / "a.png", icc_profile=profile("Display P3"))))
    assert np.abs(pixels - RAMP).max() < 1.5 / 255, "greys stay greys under a profile of colours"
    bright, srgb = (icc(b"GRAY", "sRGB grey", {b"kTRC": curve(gamma)}) for gamma in (1.8, 2.4))
    light = (np.asarray(ramp) / 255) ** 1.8
    light = np.where(light > 0.0031308, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055, 12.92 * light)
    for image in (ramp, ramp.convert("LA")):
        meant = read_image(saved(image, tmp_path / "a.png", icc_profile=bright))
        assert np.abs(grey(meant) - light).max() < 3 / 255
        kept = read_image(saved(image, tmp_path / "a.png", icc_profile=srgb))
        assert np.array_equal(np.asarray(kept)[..., 0], np.asarray(ramp)), "the curve is that of sRGB"
    colour = saved(Image.new("RGB", (8, 8), (220, 40, 60)), tmp_path / "a.png", icc_profile=bright)
    assert read_image(colour).getpixel((4, 4)) == (220, 40, 60), "a profile of greys fits no colours"


def test_profiles_of_inks(tmp_path):
    press = inks(lambda c, m, y, k: (255 - 128 * k, 128, 128))  # black ink prints L 50, the others nothing
    sheet = Image.new("CMYK", (32, 16), (255, 255, 255, 0))
    sheet.paste((0, 0, 0, 255), (16, 0, 32, 16))
    for name, options in (("a.jpg", {"quality": 98}), ("a.tiff", {})):
        back = read_image(saved(sheet, tmp_path / name, icc_profile=press, **options))
        left, right = (np.array(back.getpixel(place)) for place in ((4, 8), (28, 8)))
        assert left.min() > 252 and np.abs(right - 119).max() <= 3, "L 50 is level 119 of sRGB"
    colour = saved(Image.new("RGB", (8, 8), (220, 40, 60)), tmp_path / "b.png", icc_profile=press)
    assert read_image(colour).getpixel((4, 4)) == (220, 40, 60), "a profile of inks fits no light"


def test_what_is_no_file_is_told_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name, fact in {"pipe": "is a pipe", "loop": "cannot be read", "zero": "is a device"}.items():
        with pytest.raises(ImageError, match=fact):
            read_image(tmp_path / f"{name}.png")


def test_a_file_too_large_to_be_a_picture_is_told(tmp_path):
    with (tmp_path / "vast.png").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ImageError, match="is larger than 256 MiB"):
        read_image(tmp_path / "vast.png")


def progressive(size, scans):
    """A JPEG whose last scan comes many times: small to send, long to decode."""
    whole = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(whole, "JPEG", progressive=True)
    data = whole.getvalue()
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:last] + data[last:end] * scans + data[end:]


def test_a_jpeg_of_thousands_of_scans_is_refused_and_an_ordinary_one_read(tmp_path):
    file = tmp_path / "scans.jpg"
    for size, scans, good in (
        ((64, 48), 1, True),
        ((64, 48), 100, True),
        ((64, 48), 5_000, False),
        ((3000, 2000), 200, False),
    ):
        file.write_bytes(progressive(size, scans))
        if good:
            assert read_image(file).size == size
        else:
            with pytest.raises(ImageError, match=r"JPEG of \d+ scans"):
                read_image(file)


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
        bad[name] = "no image" if name == "none.png" else "pixels"
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(whole, "JPEG")
    (tmp_path / "half.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "program.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "float.tiff")
    bad |= (
        dict.fromkeys(("empty.png", "text.png", "program.png"), "no image")
        | {"half.jpg": "cannot be read"}
        | {"float.tiff": "floating"}
    )
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
