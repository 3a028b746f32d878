"""Lowering: a rule for each module and call of a merged network in normal form gives the program."""
