"""What is wrong with what a bundle was asked."""

from targets.errors import ConfigError


class InputError(ConfigError, ValueError):
    """An array or image that the network does not take: says what it is and what is needed."""
