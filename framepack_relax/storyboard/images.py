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
    """Exactly `size` (width, height): scaled to cover it, to whole pixels, then cropped at the centre.

    Gives the pixels of resize_and_center_crop (lllyasviel/FramePack, diffusers_helper/utils.py).
    """
    scale = max(wanted / there for wanted, there in zip(size, image.size, strict=True))
    scaled = image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)
    left, top = ((there - wanted) / 2 for wanted, there in zip(size, scaled.size, strict=True))
    return scaled.crop((left, top, left + size[0], top + size[1]))
