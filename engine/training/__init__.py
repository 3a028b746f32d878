"""The training loop, its recipe, its run folder, and what training commands share."""
