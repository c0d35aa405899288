//! Layers for any Tower service.
