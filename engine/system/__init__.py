"""What the operating system gives: whole files, locks, signals, terminals, devices."""
