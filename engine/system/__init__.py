"""What the toolkit needs of the operating system.

Atomic files, locks, signals, terminals, devices, processes, packages, the compiler, pictures of plots, messages.
"""
