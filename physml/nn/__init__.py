"""Layers that two or more operators use, on plain tensors."""
