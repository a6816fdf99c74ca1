"""Pages of sessions, traces and single calls: why something cost what it did, call by call."""
