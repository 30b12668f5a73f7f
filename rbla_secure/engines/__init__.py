"""Engines carry messages between coordinator and participants; they know no cryptography."""
