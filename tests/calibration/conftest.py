import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from calibration.tokens import TextEncoder
from tests.pretrained import save_tokenizer

MakeImages = Callable[..., Path]


@pytest.fixture
def make_images(tmp_path: Path) -> MakeImages:
    """Writes train/<class>/ and <test>/<class>/ with random pictures of the given sizes (width, height) in turn."""

    def make(
        sizes: tuple[tuple[int, int], ...] = ((12, 10),), classes=("cat", "dog"), per_class: int = 5, test: str = "test"
    ) -> Path:
        rng = np.random.default_rng(0)
        root = tmp_path / "pictures"
        for split in ("train", test):
            for name in classes:
                folder = root / split / name
                folder.mkdir(parents=True)
                for number in range(per_class):
                    width, height = sizes[number % len(sizes)]
                    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number:03d}.png")
        return root

    return make


@pytest.fixture
def zip_folder() -> Callable[[Path], Path]:
    def pack(root: Path) -> Path:
        target = root.with_suffix(".zip")
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(root).as_posix())
        return target

    return pack


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    """Sequences of 12 tokens, of few words and all letters."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return TextEncoder(AutoTokenizer.from_pretrained(folder), 12, ("input_ids", "attention_mask", "token_type_ids"))
