"""torch's arithmetic on a device, as the whole toolkit uses it.

Precision, the order of numbers in memory, the size of an evaluation's batches, random numbers, sums over processes; a
network's buffers and running statistics, and results that an evaluation uses again.
"""
