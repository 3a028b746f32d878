"""Tasks of networks: their losses, their scores, and when two answers agree."""
