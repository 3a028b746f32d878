"""The measurements of scripts.benchmark: the toolkit's steps, textbook steps, and the device's upper bounds."""
