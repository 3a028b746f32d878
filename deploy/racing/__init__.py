"""Speed comparisons of networks: the contenders, and how they are timed."""
