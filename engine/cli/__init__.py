"""The command line: flags, the values they take, the frame of a command, default file names. Needs no torch."""
