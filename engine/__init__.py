"""The base of every experiment: commands, data, checkpoints, tasks and training.

It imports no other package of the toolkit, and knows no quantizers, masks or layers of them. It knows whether a network
computes with codes, because codes decide the arithmetic. It knows torch's convolutions and batch norms, because their
geometry decides memory order and precision, and faults of libraries are worked around here.

Imports between its folders go one way: errors < system < numerics < cli < data < tasks < checkpoint < training.
"""

import model_compression  # noqa: F401  Python then finds the toolkit's own packages
