//! `GetKernel` and `ListKernels`: what the registry has.

use super::proto::{GetKernelRequest, KernelDescription, ListKernelsRequest, ListKernelsResponse, Mode};
use super::status::Rejection;
use crate::error::ErrorKind;
use crate::service::{self, InvalidInput, KernelError, KernelInfo, KernelRegistry};

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

pub(super) fn get(registry: &KernelRegistry, request: GetKernelRequest) -> Result<KernelDescription, Rejection> {
    let Some(kernel) = registry.get(&request.kernel_id) else {
        return Err(Rejection::of(&KernelError::unknown(request.kernel_id)));
    };
    let document = |schema| {
        serde_json::to_string(schema)
            .map_err(|error| Rejection::new(ErrorKind::Internal, format!("a schema cannot be written: {error}")))
    };
    let (input, output) = kernel.schemas().map_err(|error| Rejection::of(&error).of_kernel(&kernel.info().id))?;
    Ok(KernelDescription {
        input_schema: document(input)?,
        output_schema: document(output)?,
        ..describe(kernel.info())
    })
}

/// A page token is the last id of the page before: kernels that are registered in between move no others.
pub(super) fn list(registry: &KernelRegistry, request: &ListKernelsRequest) -> Result<ListKernelsResponse, Rejection> {
    let mode = Mode::try_from(request.mode)
        .map_err(|_| InvalidInput::new("mode", format!("there is no mode {}", request.mode)))?;
    let size = page_size(request.page_size);
    let mut kernels = registry.list();
    kernels.retain(|kernel| {
        let info = kernel.info();
        (request.domain.is_empty() || info.domain() == request.domain)
            && (mode == Mode::Unspecified || mode_of(info) == mode)
    });
    let from = kernels.partition_point(|kernel| *kernel.info().id <= *request.page_token);
    let page = &kernels[from..kernels.len().min(from + size)];
    let more = from + page.len() < kernels.len();
    Ok(ListKernelsResponse {
        kernels: page.iter().map(|kernel| describe(kernel.info())).collect(),
        next_page_token: page.last().filter(|_| more).map_or_else(String::new, |kernel| kernel.info().id.to_string()),
        total_size: u32::try_from(kernels.len()).unwrap_or(u32::MAX),
    })
}

/// The number of entries on a page of a list.
pub(super) fn page_size(requested: u32) -> usize {
    match requested as usize {
        0 => DEFAULT_PAGE,
        size => size.min(MAX_PAGE),
    }
}

fn mode_of(info: &KernelInfo) -> Mode {
    match info.mode {
        service::Mode::Batch => Mode::Batch,
        service::Mode::Ring => Mode::Ring,
    }
}

fn describe(info: &KernelInfo) -> KernelDescription {
    KernelDescription {
        id: info.id.to_string(),
        domain: info.domain().to_owned(),
        version: info.version.to_string(),
        description: info.description.to_string(),
        mode: mode_of(info).into(),
        aliases: info.aliases.iter().map(ToString::to_string).collect(),
        backends: info.backends.iter().map(|backend| backend.as_str().to_owned()).collect(),
        input_schema: String::new(),
        output_schema: String::new(),
    }
}
