"""What can go wrong with a report."""

UNUSABLE_ARTIFACT = 5
"""Exit code: a file of the run is altered or broken."""

USAGE = 2
"""Exit code: what was asked for cannot be done."""


class ReportError(Exception):
    """The report cannot be made: says which file is the matter, what was found and what to do."""

    def __init__(self, message: str, exit_code: int = UNUSABLE_ARTIFACT) -> None:
        super().__init__(message)
        self.exit_code = exit_code
