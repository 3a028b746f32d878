"""What a network is trained for: its loss, its score, and when two answers agree."""
