"""Where work is done: this process, others on this machine, or clusters of machines."""
