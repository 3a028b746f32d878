"""The checkpoint file: its bytes, its fields and its origin. torch is imported only when a file is opened."""
