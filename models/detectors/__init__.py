"""Detectors: their core, which is trained, captured, cut and quantized, and the code around it."""
