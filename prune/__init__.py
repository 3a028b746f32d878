"""Channel pruning by network slimming (arXiv 1708.06519): sparse training, plan, mask or surgery."""
