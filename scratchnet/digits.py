"""A person's own picture of a digit, made into what the network was trained on.

MNIST's makers scaled each digit, keeping its proportions, to fit 20x20 pixels, with anti-aliasing,
and moved it in a field of 28x28 so that its centre of mass lies in the middle: bright ink on black.
Before that can be done, a photograph's ink has to be told from its paper, whatever their colours.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from scratchnet.errors import InputError

FORMATS = ("PNG", "JPEG")
FIELD, BOX = 28, 20  # pixels
WORKING_SIZE = 512  # pixels of the longer side; a photograph is shrunk to it first
LEAST_CONTRAST = 32  # of 255, between ink and paper
GRAIN = 0.15  # of the ink's strength; what is fainter is the paper's grain
DUST = 0.001  # of all ink; so little, beyond the digit on any side, is dust
TEXT_RAMP = " .:-=+*#%@"

Pixels = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def read_digit(path: Path) -> Pixels:
    """Read a PNG or JPEG picture of one digit as an MNIST image.

    Ink and paper may have any colours of different brightness, or the paper may be transparent.
    The paper's shade may change slowly over the picture, as a photograph's does. The digit may lie
    anywhere, but what touches the picture's border should mostly be paper.

    Args:
        path: the picture, of any size up to Pillow's limit of 89 megapixels.

    Returns:
        (28, 28) uint8, 0 background to 255 ink.

    Raises:
        InputError: the file is missing, is no PNG or JPEG, is damaged or too large, or shows no
            ink.
    """
    ink = _find_ink(_open(path))
    if ink.max() == 0:
        raise InputError(
            f"{path}: is blank; expected ink that differs in brightness from its paper by at least "
            f"{LEAST_CONTRAST} of 255; use a darker pen or more light"
        )
    return _centre(_fit(_crop(ink)))


def as_text(image: Pixels) -> str:
    """A (28, 28) uint8 image as 28 lines of ASCII, two characters a pixel, denser for more ink."""
    levels = image.astype(int) * len(TEXT_RAMP) // 256
    return "\n".join("".join(TEXT_RAMP[level] * 2 for level in row) for row in levels)


def _open(path: Path) -> Grey:
    """The picture's brightness, upright, 0 black to 255 white, shrunk to `WORKING_SIZE`."""
    if not os.path.isfile(path):
        wrong = "is not a file" if os.path.exists(path) else "does not exist"
        raise InputError(f"{path}: {wrong}; expected a PNG or JPEG picture; check the path")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow only warns of up to twice its limit.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=FORMATS) as picture:
                return _brightness(ImageOps.exif_transpose(picture))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise InputError(
                f"{path}: is too large ({error}); expected at most {Image.MAX_IMAGE_PIXELS} pixels;"
                " scale it down first"
            ) from error
        except Exception as error:  # Pillow's decoders raise many kinds
            reason = " ".join(str(error).split())
            raise InputError(
                f"{path}: can't be read as a picture ({reason}); expected a PNG or JPEG file; "
                "save it again as PNG"
            ) from error


def _brightness(picture: Image.Image) -> Grey:
    if picture.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip them to 8, not scale
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    picture = picture.convert("RGBA").convert("LA")
    picture.thumbnail((WORKING_SIZE, WORKING_SIZE), Image.Resampling.BOX)
    grey, alpha = np.moveaxis(np.asarray(picture, np.float64), -1, 0)
    return _on_paper(grey, alpha / 255)


def _on_paper(grey: Grey, alpha: Grey) -> Grey:
    """Put a transparent picture on paper; an opaque one stays as it is."""
    border = _border(grey.shape)
    if np.median(alpha[border]) > 0.5:
        paper = float(np.median(grey[border]))
    else:  # all that can be seen is ink, so the paper's brightness must be the opposite
        paper = 255.0 if np.average(grey, weights=alpha + 1e-9) < 128 else 0.0
    return grey * alpha + paper * (1 - alpha)


def _border(shape: tuple[int, ...]) -> Mask:
    """The outer frame, a twentieth of each side wide, but at least a pixel."""
    border = np.ones(shape, bool)
    rows, columns = (max(1, side // 20) for side in shape)
    border[rows:-rows, columns:-columns] = False
    return border


def _find_ink(grey: Grey) -> Grey:
    """How much ink each pixel has, 0 to 1: its difference from the paper beneath it.

    The paper's shade is a smooth surface, fitted at first to the border, then to all pixels that
    differ from it by less than half of what the strongest ink does.
    """
    ink = ~_border(grey.shape)
    for _ in range(3):
        difference = grey - _fit_surface(grey, ~ink)
        strength = np.abs(difference)
        ink = strength > max(strength.max(), LEAST_CONTRAST) / 2
    full = np.median(strength[ink]) if ink.any() else 0.0
    if full < LEAST_CONTRAST:
        return np.zeros_like(grey)
    darker_or_lighter = np.sign(difference[ink].sum())
    return np.clip((darker_or_lighter * difference / full - GRAIN) / (1 - GRAIN), 0, 1)


def _fit_surface(grey: Grey, where: Mask) -> Grey:
    """The quadratic surface nearest to grey at the pixels of `where`, at all pixels."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in grey.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    coefficients = np.linalg.lstsq(terms[where], grey[where], rcond=None)[0]
    surface: Grey = terms @ coefficients
    return surface


def _crop(ink: Grey) -> Grey:
    top, bottom = _extent(ink.sum(axis=1))
    left, right = _extent(ink.sum(axis=0))
    return ink[top:bottom, left:right]


def _extent(profile: Grey) -> tuple[int, int]:
    """Where the ink starts and ends along one axis, dust left out."""
    share = np.cumsum(profile) / profile.sum()
    start, last = np.searchsorted(share, [DUST, 1 - DUST])
    return int(start), int(last) + 1


def _fit(ink: Grey) -> Pixels:
    """Scale the digit so that its longer side has `BOX` pixels and its strongest is 255."""
    rows, columns = (max(1, round(side * BOX / max(ink.shape))) for side in ink.shape)
    picture = Image.fromarray(ink.astype(np.float32))
    scaled = np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR))
    return np.round(scaled * (255 / scaled.max())).astype(np.uint8)


def _centre(digit: Pixels) -> Pixels:
    """Lay the digit in the field so that its centre of mass is nearest to pixel (14, 14)."""
    rows, columns = digit.shape
    top = _offset(digit.sum(axis=1, dtype=np.float64))
    left = _offset(digit.sum(axis=0, dtype=np.float64))
    field = np.zeros((FIELD, FIELD), np.uint8)
    field[top : top + rows, left : left + columns] = digit
    return field


def _offset(profile: Grey) -> int:
    centre_of_mass = float(np.average(np.arange(len(profile)), weights=profile))
    return min(max(round(FIELD / 2 - centre_of_mass), 0), FIELD - len(profile))
