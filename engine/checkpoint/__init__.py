"""The file that passes between commands: its bytes, its fields, its origin. Needs no torch until a file is opened."""
