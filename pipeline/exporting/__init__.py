"""A network becomes files for runtimes, checked against torch."""
