"""How fast networks run: who takes part, and how time is taken."""
