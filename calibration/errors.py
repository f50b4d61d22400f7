"""Errors about the user's data."""


class DataError(Exception):
    """The data cannot be used: says what was found, what is needed and what to do."""

    exit_code = 2
