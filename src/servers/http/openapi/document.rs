//! The OpenAPI document.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::responses;
use super::schemas::{Schemas, name_of};
use super::security::Security;
use crate::servers::http::RouterConfig;
use crate::servers::http::route::{OpenApiEntry, Operation};
use crate::servers::http::routes::{INFERENCE, KERNELS, OPERANDS, SERVER};
use crate::service::{KernelError, Operands, RegisteredKernel};

/// Describes a server with these operations, this configuration and these kernels.
///
/// # Errors
/// If a kernel panics while it generates its schemas.
pub(super) fn of(
    operations: &[&Operation],
    config: &RouterConfig,
    kernels: &[RegisteredKernel],
    operands: &Operands,
    security: Option<&Security>,
) -> Result<Value, KernelError> {
    let mut schemas = Schemas::new();
    schemas.tensors();
    let mut paths = paths(operations, config, (kernels, operands), &mut schemas)?;
    if let Some(security) = security {
        security.describe(&mut paths, &mut schemas);
    }
    let responses = responses::components(&mut schemas);
    let mut components = json!({
        "schemas": schemas.into_components(),
        "responses": responses,
        "headers": responses::headers(),
        "parameters": responses::parameters(),
    });
    if let Some(security) = security {
        components["securitySchemes"] = security.components();
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tower-kernels",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Compute kernels on CUDA GPUs and on the CPU. Errors are problem documents (RFC 9457); those below \
                            /v2 are error objects of the Open Inference Protocol.",
        },
        // Relative to this document, so that it is correct for nested routers and behind proxies that strip a prefix.
        "servers": [{ "url": "." }],
        "tags": tags(kernels),
        "paths": paths,
        "components": components,
    }))
}

fn paths(
    operations: &[&Operation],
    config: &RouterConfig,
    (kernels, operands): (&[RegisteredKernel], &Operands),
    schemas: &mut Schemas,
) -> Result<Map<String, Value>, KernelError> {
    let mut paths: Map<String, Value> = Map::new();
    let mut add = |path: String, operation: &Operation, entry: Value| {
        paths.entry(path).or_insert_with(|| json!({}))[operation.method.to_lowercase()] = entry;
    };
    for operation in operations {
        let path = operation.full_path(config);
        match operation.openapi {
            OpenApiEntry::Hidden => {}
            OpenApiEntry::Once(tag, describe) => {
                let fields = describe(schemas, kernels);
                add(path.replace("{*", "{"), operation, whole_entry(operation, tag, fields));
            }
            OpenApiEntry::Operands(describe) => {
                let fields = describe(schemas, operands);
                add(path, operation, whole_entry(operation, OPERANDS, fields));
            }
            OpenApiEntry::PerKernel(describe) => {
                for kernel in kernels {
                    let Some(fields) = describe(schemas, kernel)? else { continue };
                    let info = kernel.info();
                    let id = format!("{}.{}", operation.id, name_of(&info.id));
                    let path = path.replace("{*id}", &info.id);
                    add(path, operation, entry(operation, id, info.domain(), fields));
                }
            }
        }
    }
    Ok(paths)
}

/// An operation with these fields, and those that they do not have.
fn entry(operation: &Operation, id: String, tag: &str, fields: Value) -> Value {
    let mut entry = json!({ "operationId": id, "summary": operation.summary, "tags": [tag] });
    if let Value::Object(fields) = fields {
        fields.into_iter().for_each(|(name, value)| entry[name] = value);
    }
    entry
}

/// An operation that is not one of a kernel.
fn whole_entry(operation: &Operation, tag: &str, fields: Value) -> Value {
    let mut entry = entry(operation, operation.id.to_owned(), tag, fields);
    add_path_parameters(&mut entry, operation);
    entry
}

/// Describes the parameters of the path that the operation does not describe itself.
fn add_path_parameters(entry: &mut Value, operation: &Operation) {
    let mut parameters = match entry["parameters"].take() {
        Value::Array(parameters) => parameters,
        _ => Vec::new(),
    };
    let parameter =
        |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    let is_described = |name: &&str| parameters.iter().any(|known| known["in"] == "path" && known["name"] == **name);
    let others: Vec<&str> = operation.path_parameters().filter(|name| !is_described(name)).collect();
    parameters.extend(others.into_iter().map(parameter));
    entry["parameters"] = parameters.into();
}

/// Tags of the document: those of the server's operations, then the kernel domains.
fn tags(kernels: &[RegisteredKernel]) -> Value {
    let domains: BTreeSet<_> = kernels.iter().map(|kernel| kernel.info().domain()).collect();
    let own = [KERNELS, OPERANDS, INFERENCE, SERVER];
    let domains = domains.into_iter().filter(|domain| !own.contains(domain));
    own.into_iter().chain(domains).map(|name| json!({ "name": name })).collect()
}
