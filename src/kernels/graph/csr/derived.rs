//! Forms of a graph that kernels make when they need them and that the graph keeps.

use std::sync::OnceLock;

use super::CsrGraph;
use crate::kernels::graph::oriented::OrientedGraph;
#[cfg(feature = "cuda")]
use crate::kernels::graph::segmented::SegmentedRows;
use crate::service::{KernelError, RunContext};

/// Other forms of a graph, each made when a kernel needs it first and kept, in the order in which they were made.
#[derive(Debug, Clone, Default)]
pub(super) struct DerivedForms([OnceLock<DerivedForm>; 2]);

/// A form that follows from a graph's arcs.
#[derive(Debug, Clone)]
pub(in crate::kernels::graph) enum DerivedForm {
    /// Each edge at one end.
    Oriented(OrientedGraph),
    /// The predecessors by segments, if products are faster with them.
    #[cfg(feature = "cuda")]
    Segmented(Option<SegmentedRows>),
}

impl DerivedForms {
    fn iter(&self) -> impl Iterator<Item = &DerivedForm> {
        self.0.iter().map_while(OnceLock::get)
    }

    /// Keeps a form, unless another request has made the same meanwhile.
    fn keep(&self, mut form: DerivedForm) {
        for place in &self.0 {
            let Err(not_kept) = place.set(form) else { return };
            form = not_kept;
            if place.get().is_some_and(|kept| std::mem::discriminant(kept) == std::mem::discriminant(&form)) {
                return;
            }
        }
    }
}

impl CsrGraph {
    /// Returns the oriented form of the graph, which is made at the first call and kept.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub fn oriented(&self, context: &RunContext<'_>) -> Result<&OrientedGraph, KernelError> {
        self.derived_form(
            |form| match form {
                DerivedForm::Oriented(oriented) => Some(oriented),
                #[cfg(feature = "cuda")]
                DerivedForm::Segmented(_) => None,
            },
            || Ok(DerivedForm::Oriented(OrientedGraph::new(self, context)?)),
        )
    }

    /// Returns the predecessors by segments, which are made at the first call and kept; `None` if products are not faster
    /// with them.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    #[cfg(feature = "cuda")]
    pub(in crate::kernels::graph) fn segmented(
        &self,
        context: &RunContext<'_>,
    ) -> Result<Option<&SegmentedRows>, KernelError> {
        let segmented = self.derived_form(
            |form| match form {
                DerivedForm::Segmented(segmented) => Some(segmented),
                DerivedForm::Oriented(_) => None,
            },
            || Ok(DerivedForm::Segmented(SegmentedRows::new(self, context)?)),
        )?;
        Ok(segmented.as_ref())
    }

    fn derived_form<T>(
        &self,
        get: impl Fn(&DerivedForm) -> Option<&T>,
        make: impl FnOnce() -> Result<DerivedForm, KernelError>,
    ) -> Result<&T, KernelError> {
        if let Some(form) = self.made_forms().find_map(&get) {
            return Ok(form);
        }
        self.derived_forms.keep(make()?);
        Ok(self.made_forms().find_map(&get).expect("there is room for a form of each kind"))
    }

    /// Returns the forms that were made, in the order in which they were made.
    pub(in crate::kernels::graph) fn made_forms(&self) -> impl Iterator<Item = &DerivedForm> {
        self.derived_forms.iter()
    }
}
