"""Quantizers, one in each file: formula, module, registration. base.py has their common code, kinds.py their table."""
