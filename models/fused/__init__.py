"""A network as it is trained fast: what stands between two layers, in one pass over memory each way."""
