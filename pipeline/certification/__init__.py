"""Is the exported network as fast and as accurate as asked? Evidence, measured, and the certificate."""
