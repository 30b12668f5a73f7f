"""Attacks on the federation, and how well they do: on the model by those who take part, on privacy by those who look."""
