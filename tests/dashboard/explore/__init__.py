"""The explore page, its exports and the list of calls."""
