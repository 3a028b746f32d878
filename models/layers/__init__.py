"""Layers of transformed networks: quantizers, quantized and folded convolutions."""
