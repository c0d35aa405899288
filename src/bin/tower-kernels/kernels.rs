//! The subcommands `list` and `describe`.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;
use tower_kernels::service::{KernelInfo, KernelRegistry, Mode, RegisteredKernel};

use crate::Outcome;
use crate::exit::{Exit, Failure};
use crate::output::{columns, print};
use crate::suggest::did_you_mean_any;

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// List only kernels of this domain.
    #[arg(long)]
    domain: Option<String>,
    /// List only kernels of this mode.
    #[arg(long, value_parser = ["batch", "ring"])]
    mode: Option<String>,
    /// Print a JSON array instead of a table.
    #[arg(long)]
    json: bool,
}

/// Arguments of `describe`.
#[derive(Debug, clap::Args)]
pub(crate) struct DescribeArgs {
    /// The kernel's id, or one of its aliases.
    id: String,
    /// Print a JSON document with the JSON Schemas of input and output.
    #[arg(long)]
    json: bool,
}

/// A registry of all built-in kernels.
pub(crate) fn registry() -> Result<KernelRegistry, Failure> {
    let registry = KernelRegistry::new();
    let registered = tower_kernels::kernels::register_all(&registry);
    registered.map_err(|error| Exit::Failed.failure(error.to_string())).map(|()| registry)
}

/// The error for an unknown id, with suggestions.
pub(crate) fn unknown(registry: &KernelRegistry, id: &str) -> Failure {
    let kernels = registry.list();
    let infos = kernels.iter().map(|kernel| kernel.info());
    let ids = infos.flat_map(|info| std::iter::once(&info.id).chain(&info.aliases)).map(|id| &**id);
    let hint = did_you_mean_any(id, ids, 3).unwrap_or_else(|| "`tower-kernels list` lists the kernels".to_owned());
    Exit::NotFound.failure(format!("no kernel has the id `{id}`: {hint}"))
}

pub(crate) fn list(args: &ListArgs) -> Outcome {
    let kernels = registry()?.list();
    let domains: BTreeSet<_> = kernels.iter().map(|kernel| kernel.info().domain()).collect();
    if let Some(domain) = args.domain.as_deref().filter(|domain| !domains.contains(domain)) {
        let all = domains.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Exit::Usage.failure(format!("no kernel has the domain `{domain}`; the domains are {all}")).into());
    }
    let wanted = |info: &KernelInfo| {
        args.domain.as_deref().is_none_or(|domain| info.domain() == domain)
            && args.mode.as_deref().is_none_or(|mode| mode_of(info) == mode)
    };
    let kernels: Vec<_> = kernels.iter().map(|kernel| kernel.info()).filter(|info| wanted(info)).collect();
    print(if args.json { json(&kernels)? } else { table(&kernels) })?;
    Ok(Exit::Done.into())
}

fn table(kernels: &[&KernelInfo]) -> String {
    let rows = kernels
        .iter()
        .map(|info| [info.id.to_string(), mode_of(info).into(), backends(info), info.description.to_string()]);
    let head = ["ID", "MODE", "BACKENDS", "DESCRIPTION"].map(str::to_owned);
    columns(std::iter::once(head).chain(rows).collect(), "")
}

pub(crate) fn describe(args: &DescribeArgs) -> Outcome {
    let registry = registry()?;
    let kernel = registry.get(&args.id).ok_or_else(|| unknown(&registry, &args.id))?;
    print(match registry.describe(&args.id) {
        Some(description) if args.json => json(&description)?,
        _ => text(&kernel)?,
    })?;
    Ok(Exit::Done.into())
}

fn text(kernel: &RegisteredKernel) -> Result<String, std::fmt::Error> {
    let info = kernel.info();
    let mut text = format!("{} {}\n{}\n\n", info.id, info.version, info.description);
    writeln!(text, "  mode      {}", mode_of(info))?;
    writeln!(text, "  backends  {}", backends(info))?;
    let aliases = if info.aliases.is_empty() { "none".to_owned() } else { info.aliases.join(", ") };
    writeln!(text, "  aliases   {aliases}")?;
    for (name, schema) in [("Input", kernel.input_schema()), ("Output", kernel.output_schema())] {
        write!(text, "\n{name}\n{}", fields(schema.as_value()))?;
    }
    let examples = kernel.input_schema().as_value().get("examples").and_then(Value::as_array);
    let examples: Vec<_> = examples.into_iter().flatten().collect();
    if !examples.is_empty() {
        writeln!(text, "\nExamples")?;
    }
    for example in examples {
        writeln!(text, "  echo '{example}' | tower-kernels run {}", info.id)?;
    }
    Ok(text)
}

/// The fields of a schema, one per line.
fn fields(schema: &Value) -> String {
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|one| one == name));
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return format!("  {}\n", type_of(schema, schema));
    };
    let row = |(name, field): (&String, &Value)| {
        let need = match field.get("default") {
            _ if is_required(name) => String::new(),
            Some(default) if !default.is_null() => format!("default {default}"),
            _ => "optional".to_owned(),
        };
        let description = field.get("description").and_then(Value::as_str).unwrap_or_default();
        [name.clone(), type_of(field, schema), need, description.replace('\n', " ")]
    };
    columns(properties.iter().map(row).collect(), "  ")
}

/// The type of a field, in a word or two. `root` holds the definitions that it may refer to.
fn type_of(field: &Value, root: &Value) -> String {
    if let Some(reference) = field.get("$ref").and_then(Value::as_str) {
        return match reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
            Some(definition) => type_of(definition, root),
            None => reference.to_owned(),
        };
    }
    for either in ["anyOf", "oneOf"] {
        if let Some(choices) = field.get(either).and_then(Value::as_array) {
            let choices = choices.iter().map(|choice| type_of(choice, root)).filter(|name| name != "null");
            let mut names: Vec<_> = choices.collect();
            names.dedup();
            // The values of an enum whose variants are described one by one.
            let are_values = names.iter().all(|name| name.starts_with('"'));
            return names.join(if are_values { " | " } else { " or " });
        }
    }
    if let Some(value) = field.get("const") {
        return value.to_string();
    }
    if let Some(values) = field.get("enum").and_then(Value::as_array) {
        return values.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
    }
    let types: Vec<_> = match field.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        _ => return "any".to_owned(),
    };
    match (types.as_slice(), field.get("items")) {
        (["array"], Some(items)) => {
            let length = field.get("maxItems").filter(|most| field.get("minItems") == Some(most));
            let length = length.and_then(Value::as_u64).filter(|length| (2..=4).contains(length)).unwrap_or(1);
            format!("[{}]", vec![type_of(items, root); length as usize].join(", "))
        }
        _ => types.join(" or "),
    }
}

fn mode_of(info: &KernelInfo) -> &'static str {
    match info.mode {
        Mode::Batch => "batch",
        Mode::Ring => "ring",
    }
}

fn backends(info: &KernelInfo) -> String {
    if info.backends.is_empty() {
        return "none".to_owned();
    }
    info.backends.iter().map(|backend| backend.as_str()).collect::<Vec<_>>().join(", ")
}

fn json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n")
}
