"""What every experiment runs on. Nothing here knows a bit width, a mask or a layer, or imports another folder.

Arrows between its folders go one way: errors < system < cli < data < checkpoint < tasks < training.
"""

import model_compression  # noqa: F401  our packages are found where they lie
