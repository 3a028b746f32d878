"""Quantizers, one file each: formula, module, registration. What they share is in base.py, their table in kinds.py."""
