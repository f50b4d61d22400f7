"""Releases beside each other: bundles that are read, compared, gated and listed."""
