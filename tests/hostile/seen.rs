//! Whether what happened to each request is counted as what its client was told.
