"""Start images, which may be anything: read as upright 8-bit RGB, or refused with the reason and the cure."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # none that runs other programs
MOST_PIXELS = 50_000_000
SAVE_ANEW = "save it as PNG or JPEG"


class ImageError(ValueError):
    """An image that cannot be used: the fact and the cure, without the place."""


def read_image(path: Path) -> Image.Image:
    """RGB, upright as EXIF says, transparency on white, 16-bit grey scaled, the first frame of an animation.

    Raises ImageError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns where we refuse
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    limit = f"at most {MOST_PIXELS // 10**6} million are read: make it smaller"
                    raise ImageError(f"is {width} x {height} pixels; {limit}")
                return _to_rgb(ImageOps.exif_transpose(image))
    except (ImageError, FileNotFoundError):
        raise
    except Exception as error:  # Pillow's decoders raise what they like on damaged files
        raise ImageError(f"cannot be read as an image ({error or type(error).__name__}); {SAVE_ANEW}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError(f"holds floating-point numbers of unknown range; {SAVE_ANEW}")
    if image.mode.startswith("I"):  # 16 bits; convert() would clip at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def fit_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Exactly `size` (width, height): scaled to cover, centre-cropped.

    Source: resize_and_center_crop in lllyasviel/FramePack, diffusers_helper/utils.py.
    """
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def cut_away(image: tuple[int, int], film: tuple[int, int]) -> tuple[float, str]:
    """The share of an image that `fit_image` cuts away, 0..1, and from which sides; sizes are (width, height) px."""
    across, along = image[0] * film[1], image[1] * film[0]
    return 1 - min(across, along) / max(across, along), "left and right" if across > along else "top and bottom"
