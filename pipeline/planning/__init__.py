"""Which level for which unit: plans that are measured, searched and brought to the requested speedup."""
