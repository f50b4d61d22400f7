from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reports.run_folder import Files, realistic_files, write_run_folder


@pytest.fixture
def files() -> Files:
    return realistic_files()


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[Files], Path]:
    """Writes files as a run folder and gives its path."""
    return lambda files: write_run_folder(tmp_path / "run", files)
