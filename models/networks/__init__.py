"""The built-in networks, one in each file."""
