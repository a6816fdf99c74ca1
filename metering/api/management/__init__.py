"""Configuration over HTTP: a module per noun, with the domain's functions behind."""
