"""The operating system: atomic files, locks, signals, terminals, devices, processes."""
