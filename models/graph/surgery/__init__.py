"""Cutting of channels: their constant outputs are absorbed, and the network is narrowed."""
