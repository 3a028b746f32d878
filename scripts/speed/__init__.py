"""What scripts.benchmark measures: steps of this toolkit, the textbook's, and what the device can do at best."""
