use tower_layer::Layer;

use super::Optional;

/// Applies a layer if there is one. See the [module](super).
#[derive(Clone, Copy, Debug, Default)]
pub struct OptionalLayer<L> {
    layer: Option<L>,
}

impl<L> OptionalLayer<L> {
    /// Creates a layer that applies `layer` if it is `Some`.
    pub const fn new(layer: Option<L>) -> Self {
        Self { layer }
    }
}

impl<S, L: Layer<S>> Layer<S> for OptionalLayer<L> {
    type Service = Optional<L::Service, S>;

    fn layer(&self, inner: S) -> Self::Service {
        match &self.layer {
            Some(layer) => Optional::Layered(layer.layer(inner)),
            None => Optional::Plain(inner),
        }
    }
}
