"""A certified network elsewhere: other threads, batches, input sizes, neighbours and instruction sets."""
