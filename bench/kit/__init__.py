"""What trials and benchmarks share: start a service, break its parts, send over many connections,
and state what must hold.
"""
