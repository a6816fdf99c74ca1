"""Pages of customers, plans and what is earned on them."""
