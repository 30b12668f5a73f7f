"""What bounds and hides a single client: clipping and fixed point. Noise, ledger and accounting will stand here."""
