"""Pages of budgets: which limit is hit next, what one budget does, and the form for its rule."""
