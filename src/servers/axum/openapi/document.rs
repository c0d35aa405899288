//! The whole of the document.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::RouterConfig;
use super::super::route::Route;
use super::operations::{self, KERNELS, SERVER};
use super::responses;
use super::schemas::Schemas;
use super::security::Security;
use crate::service::{Description, ExecuteResponse, KernelError, RegisteredKernel};

/// What a router of this configuration answers, with these kernels.
///
/// Ids hold slashes, which a parameter in a path may not, so each kernel has paths of its own, with the schemas that it
/// has. A ring kernel is described and not executed.
///
/// # Errors
/// Where a kernel panics when its types are asked for their schemas.
pub(super) fn of(
    config: &RouterConfig,
    kernels: &[RegisteredKernel],
    security: Option<&Security>,
) -> Result<Value, KernelError> {
    let (mut schemas, mut paths) = (Schemas::new(), Map::new());
    schemas.tensors();
    for route in Route::of(config, true) {
        let operations = match route {
            Route::Kernels => operations::list(&mut schemas),
            Route::Kernel => {
                of_kernels(config, kernels, &mut schemas, &mut paths)?;
                continue;
            }
            Route::Execute => operations::execute(&mut schemas, kernels),
            Route::Health => operations::health(&mut schemas),
            Route::Live => operations::live(&mut schemas),
            Route::Ready => operations::ready(&mut schemas),
            Route::Metrics => operations::metrics(),
            // What shows the document is no part of the API.
            Route::OpenApi => continue,
            #[cfg(feature = "docs")]
            Route::Docs | Route::DocsPage | Route::DocsFile => continue,
        };
        paths.insert(literal(&route.path(config)), operations);
    }
    let responses = responses::components(&mut schemas);
    let mut components = json!({
        "schemas": schemas.into_components(),
        "responses": responses,
        "headers": responses::headers(),
        "parameters": responses::parameters(),
    });
    if let Some(security) = security {
        security.describe(&mut paths);
        components["securitySchemes"] = security.components();
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tower-kernels",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Compute kernels on CUDA GPUs and on the CPU. Refusals are problem documents after RFC 9457.",
        },
        // Where this document is, wherever the router has been nested and whatever a proxy takes off the path.
        "servers": [{ "url": "." }],
        "tags": tags(kernels),
        "paths": paths,
        "components": components,
    }))
}

fn of_kernels(
    config: &RouterConfig,
    kernels: &[RegisteredKernel],
    schemas: &mut Schemas,
    paths: &mut Map<String, Value>,
) -> Result<(), KernelError> {
    let (description, response) = (schemas.written::<Description>(), schemas.written::<ExecuteResponse>());
    for kernel in kernels {
        let path = literal(&config.path(&format!("/kernels/{}", kernel.info().id)));
        if kernel.is_batch() {
            let (input, output) = schemas.kernel(kernel)?;
            let execute = operations::execute_kernel(kernel, &input, &output, &response);
            paths.insert(format!("{path}/execute"), execute);
        }
        paths.insert(path, operations::describe(kernel, &description));
    }
    Ok(())
}

/// The domains, after what belongs to none.
fn tags(kernels: &[RegisteredKernel]) -> Value {
    let domains: BTreeSet<_> = kernels.iter().map(|kernel| kernel.info().domain()).collect();
    let domains = domains.into_iter().filter(|domain| ![KERNELS, SERVER].contains(domain));
    [KERNELS, SERVER].into_iter().chain(domains).map(|name| json!({ "name": name })).collect()
}

/// A path of axum's, where doubled braces stand for themselves, as a path of OpenAPI's, where none do.
fn literal(path: &str) -> String {
    path.replace("{{", "%7B").replace("}}", "%7D")
}
