"""From image files to pixels."""

import io

from PIL import ExifTags, Image, ImageOps

from calibration.errors import DataError
from calibration.sources import Source

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")
"""Of the files that are taken for images."""

_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


def open_image(source: Source, member: str) -> Image.Image:
    """The image in a file, its header read.

    Raises:
        DataError: it is no readable image.
    """
    content = source.read(member)
    try:
        return Image.open(io.BytesIO(content))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise unreadable(source, member, error) from error


def unreadable(source: Source, member: str, error: Exception) -> DataError:
    """What to say of a file that is no readable image."""
    return DataError(f"{source.root}: {member} is not a readable image ({error}). Repair or remove it")


def upright_size(source: Source, member: str) -> tuple[int, int]:
    """Width and height in pixels of an image as people see it, from its header.

    Raises:
        DataError: it is no readable image.
    """
    with open_image(source, member) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    return (height, width) if turned else (width, height)


def decode_upright(source: Source, member: str, size: tuple[int, int]) -> Image.Image:
    """The image in RGB, turned as its camera says, if its size is then ``size``; otherwise as it is stored.

    Args:
        source: of the file.
        member: its path.
        size: width and height that its annotations are about.

    Raises:
        DataError: it is no readable image, or has neither way this size.
    """
    with open_image(source, member) as stored:
        try:
            image = ImageOps.exif_transpose(stored)
            chosen = image if image.size == size else stored
            if chosen.size != size:
                raise DataError(
                    f"{source.root}: {member} has {chosen.width}x{chosen.height} pixels, its annotations are for "
                    f"{size[0]}x{size[1]}. Annotate the image that is there, or put the annotated one back"
                )
            return chosen.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise unreadable(source, member, error) from error
