"""The overview: what is spent, where it is heading, what moved it, and what needs attention."""
