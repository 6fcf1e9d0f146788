"""Where rows come from: formats, checks, scaling, epoch order. No MPI."""
