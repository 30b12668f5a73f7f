"""Attacks on the federation and how well they work: participants attack the model, observers attack privacy."""
