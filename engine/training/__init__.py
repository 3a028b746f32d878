"""The training loop, recipes, the run folder, and the code that training commands share."""
