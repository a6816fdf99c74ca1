"""On PYTHONPATH, so that Python imports `sitecustomize` from here before anything else."""
