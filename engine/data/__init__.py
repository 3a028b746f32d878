"""Data sets: reading their pictures and making batches of them."""
