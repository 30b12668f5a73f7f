"""Double masking with drop-out recovery: Bonawitz et al., CCS 2017, "Practical Secure Aggregation"."""
