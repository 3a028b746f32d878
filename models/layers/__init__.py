"""Layers that networks are made of after a transform: quantizers, quantized and folded convolutions."""
