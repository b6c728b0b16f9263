"""Scenes: where they come from, how they are listed, packed, augmented and drawn."""
