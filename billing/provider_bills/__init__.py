"""What providers say that usage cost: their bills, read exactly, and kept by day and model."""
