"""The channels of a network that go together. Start at classes.py."""
