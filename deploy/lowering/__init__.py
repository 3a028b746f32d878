"""From a merged network in normal form to a program: what each module and each call becomes."""
