"""Calls and the reports that tell of them: what one report says, and what a call is by all of them.

`report` and `merging` are pure; `known` reads and writes the reports that are stored.
"""
