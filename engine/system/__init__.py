"""What the toolkit needs of the machine: of the operating system, and of torch's arithmetic on a device.

Operating system: atomic files, locks, signals, terminals, devices, processes, packages, the compiler, messages.
Arithmetic: precision, order of numbers in memory, size of an evaluation's batches, random draws, sums over processes;
a network's buffers, running statistics, and results that an evaluation uses again.
"""
