//! What the deployment files allow, held against the program.
