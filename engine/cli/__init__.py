"""The command line: flags and their values, running a command, default file names. It does not import torch."""

from engine.cli import uncaught

uncaught.install()
