"""Quantization: what goes where (spec), how a network gets it (prepare), and the commands that train with it."""
