"""Detectors: the part of them that is trained, captured, cut and quantized, and their own code around it."""
