"""Where parts are computed: in this process, in a pool of processes, or on a Dask cluster."""
