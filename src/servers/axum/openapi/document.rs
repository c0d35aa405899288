//! The OpenAPI document.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::RouterConfig;
use super::super::route::Route;
use super::operations::{self, KERNELS, SERVER};
use super::responses;
use super::schemas::Schemas;
use super::security::Security;
use crate::service::{Description, ExecuteResponse, KernelError, RegisteredKernel};

/// Describes a router with this configuration and these kernels.
///
/// Path parameters cannot contain the slashes of kernel ids, so each kernel has paths and schemas of its own. A ring
/// kernel has no execute operation.
///
/// # Errors
/// If a kernel panics while it generates its schemas.
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
            // The documentation is not part of the API.
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
            "description": "Compute kernels on CUDA GPUs and on the CPU. Errors are problem documents (RFC 9457).",
        },
        // Relative to this document, so that it is correct for nested routers and behind proxies that strip a prefix.
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

/// Tags of the document: those of the server's operations, then the kernel domains.
fn tags(kernels: &[RegisteredKernel]) -> Value {
    let domains: BTreeSet<_> = kernels.iter().map(|kernel| kernel.info().domain()).collect();
    let domains = domains.into_iter().filter(|domain| ![KERNELS, SERVER].contains(domain));
    [KERNELS, SERVER].into_iter().chain(domains).map(|name| json!({ "name": name })).collect()
}

/// Converts a path of axum, where doubled braces are literal, to one of OpenAPI, where braces cannot be literal.
fn literal(path: &str) -> String {
    path.replace("{{", "%7B").replace("}}", "%7D")
}
