"""The reference: the definition of what programs compute, with which tests compare every other executor."""
