"""Fast training: the operations between two layers run in one pass over memory forward and one backward."""
