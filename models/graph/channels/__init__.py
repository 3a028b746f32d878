"""Which channels of a network go together. Start at classes.py."""
