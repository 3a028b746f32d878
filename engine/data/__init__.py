"""Pictures: which data sets there are, how each is read, and how a batch is made of them."""
