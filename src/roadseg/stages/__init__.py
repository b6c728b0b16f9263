"""One file a stage: read, compute, write. `stage.py` is what all of them share."""
