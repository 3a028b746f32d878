"""Channels are cut: what they said is absorbed, and the network is narrowed."""
