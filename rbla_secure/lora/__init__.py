"""LoRA adapters as matrices of rank rows, and RBLA on them."""
