"""Pictures of methods: curves of quantizers and histograms of a network, numbers apart from how matplotlib draws them."""
