"""Small sets of annotated images, in both layouts."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (80, 40)
"""Width and height of every image."""

BOX = (10, 5, 40, 20)
"""Left, top, width and height of the object in every image; its class is the image's number modulo 2."""

DATA_YAML = """
path: ../datasets/pets
train: images/train
val: images/val
names: [cat, dog]
"""


def write_images(folder: Path, count: int) -> list[str]:
    """Grey noise with a bright box where the object is."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    names = [f"{number:03d}.png" for number in range(count)]
    left, top, width, height = BOX
    for name in names:
        pixels = rng.integers(60, 90, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        pixels[top : top + height, left : left + width] = 250
        Image.fromarray(pixels).save(folder / name)
    return names


def instances(names: list[str], first_id: int = 0) -> dict[str, Any]:
    """COCO's annotations of images as `write_images` makes them; categories 3 (cat) and 7 (dog)."""
    images = [
        {"id": first_id + number, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
        for number, name in enumerate(names)
    ]
    annotations = [
        {"id": 100 + n, "image_id": image["id"], "category_id": (3, 7)[n % 2], "bbox": list(BOX), "iscrowd": 0}
        for n, image in enumerate(images)
    ]
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(root: Path, train: int = 6, val: int = 4) -> Path:
    """COCO's layout as it is published: annotations/ beside a folder of images for every split."""
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train", train), ("val", val)):
        names = write_images(root / f"{split}2017", count)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(instances(names)))
    return root


def write_yolo(root: Path, train: int = 6, val: int = 4, yaml: bool = True) -> Path:
    """YOLO's layout: images/ and labels/ with a folder for every split."""
    left, top, width, height = BOX
    shares = (left + width / 2) / SIZE[0], (top + height / 2) / SIZE[1], width / SIZE[0], height / SIZE[1]
    for split, count in (("train", train), ("val", val)):
        names = write_images(root / "images" / split, count)
        (root / "labels" / split).mkdir(parents=True)
        for number, name in enumerate(names):
            line = " ".join(map(str, (number % 2, *shares)))
            (root / "labels" / split / name).with_suffix(".txt").write_text(line + "\n")
    if yaml:
        (root / "data.yaml").write_text(
            "path: ../datasets/pets\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"
        )
    return root


def zipped(root: Path) -> Path:
    """The folder as a zip file."""
    return Path(shutil.make_archive(str(root), "zip", root))
