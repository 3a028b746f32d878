"""The command line: flags and their values, running a command, default file names. It does not import torch."""
