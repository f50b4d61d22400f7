"""What a user might have instead: plain allocators, int8, fewer bits, other methods."""
