"""Folding batch norm into the layers before it, and proving that nothing changed."""
