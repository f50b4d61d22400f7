"""What a probe promises, in words."""

from profilers.probe import RuntimeCapability


def promised(capability: RuntimeCapability) -> str:
    """What the probe says of a runtime's families, in words."""
    amounts = {
        "unstructured": "at 90% to 99% sparsity",
        "channel": "at half to a quarter of the channels",
        "int8": "in int8",
    }
    said = [f"{promise:.2f}x {amounts[family]}" for family, promise in capability.promises.items()]
    return ", ".join(said) or "1.00x (no family of levels)"
