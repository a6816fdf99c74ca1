"""Usage by any two dimensions and any metric, down to the single call."""
