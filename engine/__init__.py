"""The base of every experiment: commands, data, checkpoints, tasks and training.

It knows no bit widths, masks or layers, and imports no other package of the toolkit.

Imports between its folders go one way: errors < system < cli < data < checkpoint < tasks < training.
"""

import model_compression  # noqa: F401  Python then finds the toolkit's own packages
