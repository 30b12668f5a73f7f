"""Privacy of a single client: clipping, fixed point, noise, accounting and ledgers."""
