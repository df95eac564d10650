"""Start images, which may be anything: read as upright 8-bit sRGB, or refused with the reason and the cure."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from .paths import not_a_file

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # none that runs other programs
NARROWEST = 32  # a side may be so many times the other: what is scaled to cover the film is scaled whole
MOST_PIXELS = 50_000_000
MOST_BYTES = 1 << 28
MOST_SCANS, MOST_SCANNED = 1_000, 5 * 10**8  # of a progressive JPEG: its scans, and those times its pixels
SAVE_ANEW = "save it as PNG or JPEG"
SPACES = {  # of a profile its colour space: the mode that it is for, and modes of images that it fits
    "RGB": ("RGB", ("RGB", "RGBA", "P", "PA", "L", "LA", "1")),
    "GRAY": ("L", ("L", "LA", "1")),
    "CMYK": ("CMYK", ("CMYK",)),
}
STEPS, UNSEEN = 17, 2  # of each channel, and levels of 255 by which a profile of sRGB may differ from ours


class ImageError(ValueError):
    """An image that cannot be used: the fact and the cure, without the place."""


def read_image(path: Path) -> Image.Image:
    """The image in a file, as `decode_image` gives it. Raises ImageError."""
    try:
        if kind := not_a_file(path):
            raise ImageError(f"is {kind}; name an image file")
        data = _read_bytes(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror}); mend that") from error
    return decode_image(data)


def decode_image(data: bytes) -> Image.Image:
    """RGB, upright as EXIF says, in sRGB by its profile, on white, 16-bit grey scaled, an animation's first frame.

    Raises ImageError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns where we refuse
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_work(image, data)
                return _on_white(_to_srgb(_to_8_bits(ImageOps.exif_transpose(image))))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"is no image of a kind that is known; {SAVE_ANEW}") from error
    except Image.DecompressionBombError as error:
        raise ImageError("has too many pixels; make it smaller") from error
    except Exception as error:  # Pillow's decoders raise what they like on damaged files
        raise ImageError(f"cannot be read as an image ({error or type(error).__name__}); {SAVE_ANEW}") from error


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ImageError(f"is larger than {MOST_BYTES >> 20} MiB; make it smaller")
    return data


def _check_work(image: Image.Image, data: bytes) -> None:
    """Refuses what would take too much memory or time to decode, by the header and the scans of a JPEG."""
    pixels = image.width * image.height
    if pixels > MOST_PIXELS:
        limit = f"at most {MOST_PIXELS // 10**6} million are read: make it smaller"
        raise ImageError(f"is {image.width} x {image.height} pixels; {limit}")
    if max(image.size) > NARROWEST * min(image.size):
        raise ImageError(f"is {image.width} x {image.height} pixels, nearly a line; crop it")
    scans = data.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 0
    if scans > MOST_SCANS or scans * pixels > MOST_SCANNED:
        raise ImageError(f"is a JPEG of {scans} scans, which takes too long to read; {SAVE_ANEW} without `progressive`")


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError(f"holds floating-point numbers of unknown range; {SAVE_ANEW}")
    if not image.mode.startswith("I"):
        return image
    scaled = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    scaled.info = image.info  # 16 bits; convert() would clip at 255
    return scaled


def _to_srgb(image: Image.Image) -> Image.Image:
    """RGB or RGBA, converted by the image's colour profile; one that is damaged, for other images or sRGB does nothing.

    A profile is known by what it does to colours: its name may be anything.
    """
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    plain = image.convert("RGBA" if transparent else "RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        mode, modes = SPACES[profile.profile.xcolor_space.strip()]
        if image.mode not in modes:
            return plain
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
        every = _every_colour(mode)
        theirs, ours = ImageCms.applyTransform(every, transform), every.convert("RGB")
        if np.abs(np.asarray(theirs, int) - np.asarray(ours, int)).max() <= UNSEEN:
            return plain
        colours = image if image.mode == mode else plain.convert("RGB").convert(mode)
        converted = ImageCms.applyTransform(colours, transform)
    except (KeyError, ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return plain
    assert converted is not None, "only a conversion in place gives nothing"
    if transparent:
        converted.putalpha(plain.getchannel("A"))
    return converted


def _every_colour(mode: str) -> Image.Image:
    """One row with the whole space of a mode's colours, in even steps."""
    levels = np.linspace(0, 255, STEPS).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(*[levels] * len(mode)), -1).reshape(1, -1, len(mode))
    return Image.fromarray(colours.squeeze(-1) if mode == "L" else colours, mode)


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB") if "A" in image.mode else image


def fit_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Exactly `size` (width, height): scaled to cover it, to whole pixels, then cropped at the centre.

    Gives the pixels of resize_and_center_crop (lllyasviel/FramePack, diffusers_helper/utils.py).
    """
    scale = max(wanted / there for wanted, there in zip(size, image.size, strict=True))
    scaled = image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)
    left, top = ((there - wanted) / 2 for wanted, there in zip(size, scaled.size, strict=True))
    return scaled.crop((left, top, left + size[0], top + size[1]))


def cut_away(image: tuple[int, int], film: tuple[int, int]) -> tuple[float, str]:
    """The share of an image that `fit_image` cuts away, 0..1, and from which sides; sizes are (width, height) px."""
    across, along = image[0] * film[1], image[1] * film[0]
    return 1 - min(across, along) / max(across, along), "left and right" if across > along else "top and bottom"
